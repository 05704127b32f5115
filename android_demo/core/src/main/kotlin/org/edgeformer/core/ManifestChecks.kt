package org.edgeformer.core

import org.edgeformer.core.preprocess.AudioPreprocessing
import org.edgeformer.core.preprocess.ImagePreprocessing

/** What belongs together in a manifest that has all of its keys: files, programs, and what surrounds them. */
internal fun checkManifest(manifest: BundleManifest) {
    checkFiles(manifest)
    manifest.programs.forEach { checkProgram(manifest, it) }
    checkUnique(manifest.programs.map { it.name }, "program")
    checkTask(manifest)
}

private fun refuse(problem: String): Nothing = throw BundleError("$MANIFEST_NAME: $problem")

private fun checkFiles(manifest: BundleManifest) {
    manifest.files.keys.forEach(::checkName)
    checkDistinct(manifest.files.keys + MANIFEST_NAME + SIGNATURE_NAME)
    if (MANIFEST_NAME in manifest.files || SIGNATURE_NAME in manifest.files) refuse("files: it cannot list itself")
    if ((CASES_FILE in manifest.files) != (TENSORS_FILE in manifest.files)) {
        refuse("files: $CASES_FILE and $TENSORS_FILE belong together, found one of them")
    }
}

private fun checkProgram(manifest: BundleManifest, program: ProgramSpec) {
    val where = "program ${program.name}"
    if (program.name in RESERVED_PROGRAM_NAMES) {
        refuse("$where: this name is reserved, as are all of ${RESERVED_PROGRAM_NAMES.joinToString(", ")}")
    }
    checkName(program.file)
    val inFolder = manifest.files.keys.any { it.startsWith(program.file + "/") }
    if (program.file !in manifest.files && !inFolder) {
        refuse("$where: its file ${shorten(program.file)} is neither a file nor a folder of files")
    }
    if (inFolder != (manifest.target == Target.COREML)) {
        refuse("$where: ${shorten(program.file)}: a Core ML model is a folder, any other a file")
    }
    checkUnique((program.inputs + program.outputs).map { it.name }, "input or output of ${program.name}")
}

private fun checkTask(manifest: BundleManifest) {
    val (before, head, task) = Triple(manifest.preprocessing, manifest.postprocessing, manifest.task)
    if (before.kind != task.before) refuse("preprocessing.kind: expected '${task.before}' for ${task.key}")
    if (head.kind != task.head) refuse("postprocessing.kind: expected '${task.head}' for ${task.key}")
    when (before) {
        is TextPreprocessing -> checkText(before, manifest)
        is ImagePreprocessing -> checkImage(before, manifest.programs)
        is ImageTextPreprocessing -> checkImageText(before, manifest)
        is AudioPreprocessing -> checkSpeech(before, head as Transcription, manifest)
    }
    when (head) {
        is Classification -> {
            checkUnique(head.labels, "label")
            checkWidth(head.labels.size, manifest.programs)
        }
        is Embedding -> checkWidth(head.dim, manifest.programs)
        is Similarity -> checkWidth(head.dim, manifest.programs)
        is Score -> checkWidth(1, manifest.programs)
        is SpanExtraction -> checkTokens(before, SPAN_ENDS, head.stride, manifest.programs)
        is TokenLabels -> {
            checkUnique(head.labels, "label")
            checkTokens(before, head.labels.size, head.stride, manifest.programs)
        }
        is MaskedToken -> checkFills(before as TextPreprocessing, head, manifest.programs)
        is Transcription -> Unit
    }
}

/** There is a tokenizer, and every program predicts the token at one position. */
private fun checkFills(before: TextPreprocessing, head: MaskedToken, programs: List<ProgramSpec>) {
    val size = before.vocabSize
    if (before.tokenizer == null || size == null) refuse("preprocessing: fill-mask needs a tokenizer and vocab_size")
    if (head.maskTokenId >= size || head.maskTokenId == before.padTokenId) {
        refuse("postprocessing.mask_token_id: expected an id that is no padding's")
    }
    checkWidth(size, programs)
    val without = programs.firstOrNull { program -> program.inputs.none { it.name == MASK_POSITION } } ?: return
    refuse("program ${without.name}: expected an input $MASK_POSITION")
}

/** Every program's only output is as wide as the answer. */
private fun checkWidth(width: Int, programs: List<ProgramSpec>) {
    for (program in programs) {
        val output = program.outputs.singleOrNull()
        if (output?.shape != listOf(1, width) || output.dtype != "float32") {
            refuse("program ${program.name}: expected one float32 output of shape (1, $width)")
        }
    }
}

/** Columns of a span program's logits: that an answer starts at a token, and that it ends there. */
internal const val SPAN_ENDS = 2

/** Every program scores each of its tokens, and neighbouring windows share no more than half of one. */
private fun checkTokens(before: Preprocessing, width: Int, stride: Int, programs: List<ProgramSpec>) {
    for (program in programs) {
        val shape = listOf(1, program.inputs[0].shape[1], width)
        val output = program.outputs.singleOrNull()
        if (output?.shape != shape || output.dtype != "float32") {
            refuse("program ${program.name}: expected one float32 output of shape $shape")
        }
    }
    val longest = programs.maxOf { it.inputs[0].shape[1] }
    if (stride > longest / 2) refuse("postprocessing.stride: expected at most half of the longest program's $longest")
    if ((before as TextPreprocessing).tokenizer == null) refuse("preprocessing.tokenizer: places in a text need one")
}

/** The tokenizer is there, and the programs are buckets of different lengths. */
private fun checkText(spec: TextPreprocessing, manifest: BundleManifest) {
    if (spec.tokenizer != null && spec.tokenizer !in manifest.files) {
        refuse("preprocessing.tokenizer: ${shorten(spec.tokenizer)} is not among files")
    }
    if (spec.vocabSize != null && spec.padTokenId >= spec.vocabSize) {
        refuse("preprocessing.pad_token_id is not below vocab_size")
    }
    manifest.programs.forEach(::checkTextInputs)
    checkUnique(manifest.programs.map { it.inputs[0].shape[1].toString() }, "sequence length")
}

private fun checkTextInputs(program: ProgramSpec) {
    val ids = program.inputs.firstOrNull { it.name == "input_ids" }
    for (tensor in program.inputs) {
        if (tensor.name !in TEXT_INPUTS) {
            val known = TEXT_INPUTS.joinToString(", ")
            refuse("program ${program.name}: unknown input ${shorten(tensor.name)}: text has $known")
        }
        val isRow = tensor.dtype == "int32" && tensor.shape.size == 2 && tensor.shape[0] == 1
        if (!isRow || tensor.shape != ids?.shape) {
            refuse("program ${program.name}: expected input_ids and other inputs of one shape (1, S) in int32")
        }
    }
}

/** There is one program, and its input is what the preprocessing gives. */
private fun checkImage(spec: ImagePreprocessing, programs: List<ProgramSpec>) {
    val expected = TensorSpec(IMAGE_INPUT, "float32", listOf(1, 3, spec.height, spec.width))
    if (programs.map { it.name } != listOf(IMAGE_PROGRAM) || programs[0].inputs != listOf(expected)) {
        refuse(
            "programs: images have one program '$IMAGE_PROGRAM' with one input '$IMAGE_INPUT', float32 of shape " +
                "${expected.shape}",
        )
    }
}

/** There is a program for images, and one or more for texts, with a tokenizer. */
private fun checkImageText(spec: ImageTextPreprocessing, manifest: BundleManifest) {
    val (images, texts) = manifest.programs.partition { it.name == IMAGE_PROGRAM }
    checkImage(spec.image, images)
    if (texts.isEmpty() || spec.text.tokenizer == null) {
        refuse("${manifest.task.key} needs a tokenizer, and programs for texts")
    }
    checkText(spec.text, manifest.copy(programs = texts))
}

/** The files are there, and the programs are those of the buckets, tensor by tensor. */
private fun checkSpeech(audio: AudioPreprocessing, head: Transcription, manifest: BundleManifest) {
    if (audio.melFilters !in manifest.files) {
        refuse("preprocessing.mel_filters: ${shorten(audio.melFilters)} is not among files")
    }
    if (head.tokenizer !in manifest.files) {
        refuse("postprocessing.tokenizer: ${shorten(head.tokenizer)} is not among files")
    }
    if (head.buckets.last().positions.toLong() * audio.samplesPerPosition != audio.windowSamples.toLong()) {
        refuse("postprocessing.buckets: the last one must take ${audio.windowSamples} samples")
    }
    val layouts = head.buckets.flatMap { bucketLayout(head, it, audio.nMels) }
    val programs = manifest.programs.associateBy { it.name }
    if (layouts.size != programs.size || layouts.map { it.name }.toSet() != programs.keys) {
        refuse("programs: expected exactly those of postprocessing.buckets, each once")
    }
    for (layout in layouts) {
        val program = programs.getValue(layout.name)
        checkTensors(program.name, "inputs", layout.inputs, program.inputs)
        checkTensors(program.name, "outputs", layout.outputs, program.outputs)
    }
    checkIds(head)
}

private fun checkTensors(program: String, key: String, expected: List<TensorSpec>, found: List<TensorSpec>) {
    if (found == expected) return
    val wrong = expected.zip(found).firstOrNull { (a, b) -> a != b }?.first
    val hint = if (wrong == null) "${expected.size} of them" else "${wrong.name} as ${wrong.dtype} ${wrong.shape}"
    refuse("program $program: $key: its bucket asks for $hint")
}

/**
 * The largest number that an input of integers may hold; null: any, or it is none of integers.
 *
 * Int.MAX_VALUE: of token ids whose vocabulary is not known.
 */
internal fun largestNumber(manifest: BundleManifest, program: ProgramSpec, name: String): Int? {
    val head = manifest.postprocessing
    if (head is Transcription) {
        return when (name) {
            "token", "tokens" -> head.vocabSize - 1
            "position", "positions", "row", "rows" -> program.inputs.first { it.name == "mask" }.shape.last() - 1
            "wanted" -> head.prefillTokens - 1
            else -> null
        }
    }
    val reads = manifest.preprocessing
    val both = (reads as? ImageTextPreprocessing)?.takeIf { program.name != IMAGE_PROGRAM }
    val text = both?.text ?: reads as? TextPreprocessing ?: return null
    if (name != "input_ids") return 1
    return if (text.vocabSize == null) Int.MAX_VALUE else text.vocabSize - 1
}

/** No token id is beyond the logits. */
private fun checkIds(head: Transcription) {
    val tokens = head.tokens
    val optional = listOf(tokens.startOfPrevious, tokens.noSpeech, tokens.transcribe, tokens.translate)
    val ids = listOf(tokens.start, tokens.end, tokens.noTimestamps, tokens.firstTimestamp) + optional.filterNotNull() +
        tokens.languages.values + head.suppress + head.suppressAtStart
    val beyond = ids.firstOrNull { it >= head.vocabSize } ?: return
    refuse("postprocessing: the token $beyond is not below vocab_size")
}

private fun checkUnique(names: List<String>, what: String) {
    val seen = HashSet<String>()
    val twice = names.firstOrNull { !seen.add(it) } ?: return
    refuse("the $what ${shorten(twice)} occurs twice")
}
