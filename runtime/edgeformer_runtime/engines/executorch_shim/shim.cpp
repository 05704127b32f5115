// ExecuTorch's C++ runtime behind a C interface that ctypes can call: no Python, no torch.
//
// A module is an open .pte file. Its methods share their working memory, and with it the state that several of them
// read and write. Nothing here locks: the caller runs one call at a time.
//
// Functions that can fail return 0, or an ExecuTorch error code (runtime/core/error.h), of which ef_error() says more.

#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/platform/platform.h>

// The wheel has the library of this class but not its header, so what is called of it is declared here.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace {

using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::MethodMeta;
using executorch::runtime::PalImpl;
using executorch::runtime::Program;
using executorch::runtime::Result;
using executorch::runtime::Tag;
using executorch::runtime::TensorInfo;

constexpr size_t kMaxRank = 16;

// What ends a call where ExecuTorch would end the process.
struct Abort : std::exception {
  const char* what() const noexcept override { return "ExecuTorch gave up"; }
};

// A call of this thread: what ExecuTorch logs during it becomes the error's text, instead of lines on stderr.
struct Call {
  bool active = false;
  std::string log;
  std::string error;
};

thread_local Call call;

PalImpl original;

void emit_log(et_timestamp_t time, et_pal_log_level_t level, const char* file, const char* function, size_t line,
              const char* message, size_t length) {
  if (!call.active) {
    original.emit_log_message(time, level, file, function, line, message, length);
  } else if (level == kError || level == kFatal) {
    if (!call.log.empty()) call.log += "; ";
    call.log.append(message, length);
  }
}

void abort_call() {
  if (call.active) throw Abort();
  original.abort();
}

// Once, when the library is loaded. Other users of ExecuTorch in this process go on as before.
const bool registered = [] {
  original = *executorch::runtime::get_pal_impl();
  PalImpl ours = original;
  ours.emit_log_message = emit_log;
  ours.abort = abort_call;
  ours.source_filename = __FILE__;
  return executorch::runtime::register_pal(ours);
}();

template <typename Work>
int guarded(Work work) noexcept {
  call.active = true;
  call.log.clear();
  Error error = Error::Internal;
  try {
    error = work();
  } catch (const std::exception& exception) {
    call.log += call.log.empty() ? "" : "; ";
    call.log += exception.what();
  }
  call.active = false;
  if (error == Error::Ok) return 0;
  call.error = executorch::runtime::to_string(error);
  if (!call.log.empty()) call.error += ": " + call.log;
  return static_cast<int>(error);
}

Error refuse(const std::string& reason) {
  call.log = reason;
  return Error::InvalidArgument;
}

Result<TensorInfo> tensor_info(const MethodMeta& meta, bool output, size_t index) {
  const auto tag = output ? meta.output_tag(index) : meta.input_tag(index);
  if (!tag.ok()) return tag.error();
  if (tag.get() != Tag::Tensor) return refuse("only tensors can go in and out");
  return output ? meta.output_tensor_meta(index) : meta.input_tensor_meta(index);
}

}  // namespace

extern "C" {

#define EF_EXPORT __attribute__((visibility("default")))

struct EfModule {
  std::unique_ptr<Module> module;
  std::vector<std::string> names;
};

// What a method declares of an input or output. dtype is a ScalarType's number.
struct EfTensorInfo {
  int32_t dtype;
  int32_t rank;
  int64_t sizes[kMaxRank];
  uint64_t bytes;
};

// Memory of the caller's: dense, row-major, at least as aligned as its elements.
struct EfBuffer {
  void* data;
  uint64_t bytes;
};

// Why this thread's last failed call did so, until its next one.
EF_EXPORT const char* ef_error() { return call.error.c_str(); }

// Map a file and check it. It must not change while it is open.
EF_EXPORT int ef_open(const char* path, EfModule** opened) {
  return guarded([&] {
    auto module = std::make_unique<Module>(path, Module::LoadMode::Mmap, nullptr, nullptr, nullptr,
                                           /*share_memory_arenas=*/true);
    const Error error = module->load(Program::Verification::InternalConsistency);
    if (error != Error::Ok) return error;
    std::vector<std::string> names;
    const auto program = module->program();
    for (size_t index = 0; index < program->num_methods(); ++index) {
      const auto name = program->get_method_name(index);
      if (!name.ok()) return name.error();
      names.emplace_back(name.get());
    }
    *opened = new EfModule{std::move(module), std::move(names)};
    return Error::Ok;
  });
}

EF_EXPORT void ef_close(EfModule* module) {
  guarded([&] {
    delete module;
    return Error::Ok;
  });
}

EF_EXPORT size_t ef_method_count(const EfModule* module) { return module->names.size(); }

// The name lives as long as the module.
EF_EXPORT const char* ef_method_name(const EfModule* module, size_t index) { return module->names[index].c_str(); }

// Load a method: its kernels are looked up and its delegates pack their weights. A second time does nothing.
EF_EXPORT int ef_load_method(EfModule* module, const char* method) {
  return guarded([&] { return module->module->load_method(method); });
}

EF_EXPORT int ef_tensor_counts(EfModule* module, const char* method, size_t* inputs, size_t* outputs) {
  return guarded([&] {
    const auto meta = module->module->method_meta(method);
    if (!meta.ok()) return meta.error();
    *inputs = meta->num_inputs();
    *outputs = meta->num_outputs();
    return Error::Ok;
  });
}

// `output`: 1 for an output, 0 for an input.
EF_EXPORT int ef_tensor_info(EfModule* module, const char* method, int output, size_t index, EfTensorInfo* tensor) {
  return guarded([&] {
    const auto meta = module->module->method_meta(method);
    if (!meta.ok()) return meta.error();
    const auto info = tensor_info(*meta, output != 0, index);
    if (!info.ok()) return info.error();
    const auto sizes = info->sizes();
    if (sizes.size() > kMaxRank) return refuse("a tensor has more than 16 dimensions");
    tensor->dtype = static_cast<int32_t>(info->scalar_type());
    tensor->rank = static_cast<int32_t>(sizes.size());
    for (size_t axis = 0; axis < sizes.size(); ++axis) tensor->sizes[axis] = sizes[axis];
    tensor->bytes = info->nbytes();
    return Error::Ok;
  });
}

// Run a method from and to the caller's memory, one buffer for each input and each output, of exactly their sizes.
EF_EXPORT int ef_execute(EfModule* module, const char* method, const EfBuffer* inputs, size_t input_count,
                         const EfBuffer* outputs, size_t output_count) {
  return guarded([&] {
    const auto meta = module->module->method_meta(method);
    if (!meta.ok()) return meta.error();
    if (input_count != meta->num_inputs() || output_count != meta->num_outputs()) {
      return refuse("another number of inputs or outputs than the method has");
    }
    std::vector<TensorPtr> tensors;
    std::vector<EValue> values;
    for (size_t index = 0; index < input_count; ++index) {
      const auto info = tensor_info(*meta, false, index);
      if (!info.ok()) return info.error();
      if (inputs[index].bytes != info->nbytes()) return refuse("an input of another size than the method's");
      const auto sizes = info->sizes();
      tensors.push_back(executorch::extension::from_blob(inputs[index].data, {sizes.begin(), sizes.end()},
                                                         info->scalar_type()));
      values.emplace_back(tensors.back());
    }
    const auto results = module->module->execute(method, values);
    if (!results.ok()) return results.error();
    for (size_t index = 0; index < output_count; ++index) {
      if (!(*results)[index].isTensor()) return refuse("only tensors can go in and out");
      const auto& tensor = (*results)[index].toTensor();
      if (tensor.nbytes() != outputs[index].bytes) return refuse("an output of another size than declared");
      // It lies in memory that the next call of any method writes to.
      std::memcpy(outputs[index].data, tensor.const_data_ptr(), outputs[index].bytes);
    }
    return Error::Ok;
  });
}

// Give the process's only pool this many threads, unless it has them. Nothing may be running in it meanwhile.
EF_EXPORT int ef_use_threads(uint32_t threads) {
  return guarded([&] {
    auto* pool = executorch::extension::threadpool::get_threadpool();
    if (pool == nullptr) return refuse("no thread pool");
    if (pool->get_thread_count() == threads) return Error::Ok;
    return pool->_unsafe_reset_threadpool(threads) ? Error::Ok : Error::Internal;
  });
}

}  // extern "C"
