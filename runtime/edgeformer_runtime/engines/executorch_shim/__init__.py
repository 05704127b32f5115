"""ExecuTorch without torch: a C++ shim over the libraries in executorch's wheel, built once per machine."""
