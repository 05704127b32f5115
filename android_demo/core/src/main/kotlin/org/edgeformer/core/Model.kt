package org.edgeformer.core

import java.io.Closeable
import java.io.File
import java.io.IOException
import kotlin.coroutines.cancellation.CancellationException
import kotlin.coroutines.coroutineContext
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.produceIn
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withContext
import org.edgeformer.core.decoding.TranscribeOptions
import org.edgeformer.core.engines.Engine
import org.edgeformer.core.engines.StoppableEngine
import org.edgeformer.core.pipelines.ClassificationResult
import org.edgeformer.core.pipelines.EmbeddingResult
import org.edgeformer.core.pipelines.EntityFinder
import org.edgeformer.core.pipelines.EntityResult
import org.edgeformer.core.pipelines.FillOptions
import org.edgeformer.core.pipelines.FillResult
import org.edgeformer.core.pipelines.ImageClassifier
import org.edgeformer.core.pipelines.ImageEmbedder
import org.edgeformer.core.pipelines.ImageTextComparer
import org.edgeformer.core.pipelines.MaskFiller
import org.edgeformer.core.pipelines.PHOTO_TEMPLATE
import org.edgeformer.core.pipelines.QuestionAnswerer
import org.edgeformer.core.pipelines.ScoreResult
import org.edgeformer.core.pipelines.SpanOptions
import org.edgeformer.core.pipelines.SpanResult
import org.edgeformer.core.pipelines.StreamOptions
import org.edgeformer.core.pipelines.StreamUpdate
import org.edgeformer.core.pipelines.TextClassifier
import org.edgeformer.core.pipelines.TextEmbedder
import org.edgeformer.core.pipelines.TextScorer
import org.edgeformer.core.pipelines.Transcriber
import org.edgeformer.core.pipelines.Transcript
import org.edgeformer.core.pipelines.ZeroShotOptions
import org.edgeformer.core.pipelines.openTextPipeline
import org.edgeformer.core.preprocess.AudioReader
import org.edgeformer.core.preprocess.ImageDecoder
import org.edgeformer.core.preprocess.RawText
import org.edgeformer.core.preprocess.RgbImage
import org.edgeformer.core.preprocess.openWav

/**
 * A bundle with its engine, ready to answer: what most apps need of the library.
 *
 * Functions suspend while they work on a background thread, so they may be called on the main thread; calls take turns.
 * A cancelled call ends before the next program of the model runs: within a token of speech. An input that the bundle
 * cannot take, or a question that is not its task's, is an [InputError]; a model that fails is an [EngineError].
 *
 * ```
 * Model.open(File(path), ::openMyEngine).use { model -> println(model.classify("turn the lights off").label) }
 * ```
 */
class Model private constructor(val bundle: ModelBundle, engine: Engine, private val images: ImageDecoder) : Closeable {
    private val turn = Mutex()
    private val engine = StoppableEngine(engine) { goOn() }
    private val pipelineOfTask = lazy { openPipeline() }

    /** Throws where the call whose turn it is shall end. Only that call sets it. */
    private var goOn: () -> Unit = {}

    @Volatile
    private var isClosing = false
    private var isReleased = false

    /** What the bundle says about itself. */
    val manifest: BundleManifest get() = bundle.manifest

    /** What executes the programs, with its version. */
    val executedBy: String get() = engine.executedBy

    /** Labels of the bundle for a text, best first. */
    suspend fun classify(text: String): ClassificationResult = work { pipeline<TextClassifier>().run(text) }

    /** Labels of the call for a text, best first, by a model of natural language inference. */
    suspend fun classify(text: String, options: ZeroShotOptions): ClassificationResult =
        work { pipeline<TextClassifier>().run(text, options) }

    /** Labels of the bundle for an image, best first. */
    suspend fun classify(image: RgbImage): ClassificationResult = work { pipeline<ImageClassifier>().run(image) }

    /** Labels of the bundle for an image file, such as a JPEG, which the platform decodes. */
    suspend fun classify(file: ByteArray): ClassificationResult =
        work { pipeline<ImageClassifier>().run(images.decode(file)) }

    /** Labels of the call for an image, best first, by a model of images and texts; null: its usual sentence. */
    suspend fun classify(image: RgbImage, labels: List<String>, template: String? = null): ClassificationResult =
        work { pipeline<ImageTextComparer>().classify(image, labels, template ?: PHOTO_TEMPLATE) }

    /** The embedding of a text. */
    suspend fun embed(text: String): EmbeddingResult = work {
        (pipelineOfTask.value as? ImageTextComparer)?.embed(text) ?: pipeline<TextEmbedder>().run(text)
    }

    /** The embedding of an image. */
    suspend fun embed(image: RgbImage): EmbeddingResult = work {
        (pipelineOfTask.value as? ImageTextComparer)?.embed(image) ?: pipeline<ImageEmbedder>().run(image)
    }

    /** The cosine of an image and a text, by a model of both. */
    suspend fun score(image: RgbImage, query: String): ScoreResult =
        work { pipeline<ImageTextComparer>().score(image, query) }

    /** The score of a text, or of a pair of texts. */
    suspend fun score(text: String, second: String? = null): ScoreResult = work {
        pipeline<TextScorer>().run(if (second == null) RawText.Single(text) else RawText.Pair(text, second))
    }

    /** Answers to a question in a context, best first. */
    suspend fun answer(question: String, context: String, options: SpanOptions = SpanOptions()): SpanResult =
        work { pipeline<QuestionAnswerer>().run(question, context, options) }

    /** Names, places and what else the bundle finds in a text. */
    suspend fun entities(text: String): EntityResult = work { pipeline<EntityFinder>().run(text) }

    /** Tokens for the masks of a text, best first. */
    suspend fun fill(text: String, options: FillOptions = FillOptions()): FillResult =
        work { pipeline<MaskFiller>().run(text, options) }

    /**
     * What is said in a wav file of any rate, format and number of channels.
     *
     * @param progress called after each window with the seconds of audio that are done, on the thread that works.
     */
    suspend fun transcribe(
        wav: File,
        options: TranscribeOptions = TranscribeOptions(),
        progress: (seconds: Double) -> Unit = {},
    ): Transcript = work {
        val transcriber = pipeline<Transcriber>()
        val stream = try {
            wav.inputStream().buffered()
        } catch (error: IOException) {
            throw InputError("${wav.path}: cannot be read: ${error.message}", error)
        }
        openWav(stream, transcriber.sampleRate).use { transcriber.run(it, options, progress) }
    }

    /** What is said in a recording that `open` opens at the model's rate, in Hz; it is closed at the end. */
    suspend fun transcribe(
        options: TranscribeOptions = TranscribeOptions(),
        progress: (seconds: Double) -> Unit = {},
        open: (sampleRate: Int) -> AudioReader,
    ): Transcript = work {
        val transcriber = pipeline<Transcriber>()
        open(transcriber.sampleRate).use { transcriber.run(it, options, progress) }
    }

    /** The rate in Hz at which [stream] takes audio. */
    suspend fun sampleRate(): Int = work { pipeline<Transcriber>().sampleRate }

    /**
     * Text while audio arrives: guesses, and what stays. The flow ends when the audio does.
     *
     * Who speaks is never held up. All audio that waits is taken at once, so a slow phone makes fewer guesses instead of
     * falling behind further, and each update says how late it is ([StreamUpdate.lateSeconds]). To stop, end `audio`: what
     * was said before still comes out. Cancelling the collector drops it.
     *
     * @param audio blocks of samples (N) from -1 to 1 at [sampleRate], of any length.
     */
    fun stream(
        audio: Flow<FloatArray>,
        options: TranscribeOptions = TranscribeOptions(),
        streamOptions: StreamOptions = StreamOptions(),
    ): Flow<StreamUpdate> = flow {
        val transcript = work { pipeline<Transcriber>().openStream(options, streamOptions) }
        val rate = sampleRate().toDouble()
        coroutineScope {
            val waiting = audio.buffer(Channel.UNLIMITED).produceIn(this)
            for (first in waiting) {
                val blocks = generateSequence(first) { waiting.tryReceive().getOrNull() }.toList()
                val block = FloatArray(blocks.sumOf { it.size })
                blocks.fold(0) { at, part -> part.copyInto(block, at).let { at + part.size } }
                val late = (block.size - first.size) / rate
                work { transcript.feed(block) }.forEach { emit(it.copy(lateSeconds = late)) }
            }
        }
        work { transcript.finish() }.forEach { emit(it) }
    }

    /** The bundle's self-test: its recorded inputs once more, stage by stage. */
    suspend fun verify(progress: (done: Int, all: Int) -> Unit = { _, _ -> }): Verification =
        work { verify(bundle, engine, images, progress) }

    /** Ends the call that is under way, and releases the model after it. A second call does nothing. */
    override fun close() {
        isClosing = true
        releaseIfIdle()
    }

    /** Whoever sees last that it is closing, the caller of [close] or the call under way, releases. */
    private fun releaseIfIdle() {
        if (!turn.tryLock()) return
        try {
            if (isReleased) return
            isReleased = true
            if (pipelineOfTask.isInitialized()) (pipelineOfTask.value as? Closeable)?.close()
            engine.close()
            bundle.close()
        } finally {
            turn.unlock()
        }
    }

    private suspend fun <T> work(answer: () -> T): T = try {
        turn.withLock {
            withContext(Dispatchers.Default) {
                val context = coroutineContext
                goOn = {
                    context.ensureActive()
                    if (isClosing) throw CancellationException("the model was closed")
                }
                if (isClosing) throw EngineError("the model is closed: open it again")
                answer()
            }
        }
    } finally {
        if (isClosing) releaseIfIdle()
    }

    private inline fun <reified P : Any> pipeline(): P = pipelineOfTask.value as? P
        ?: throw InputError("${manifest.name} is for ${manifest.task.key}, which gives no such answer")

    private fun openPipeline(): Any = when (manifest.task) {
        Task.SPEECH_RECOGNITION -> Transcriber(bundle, engine)
        Task.IMAGE_CLASSIFICATION -> ImageClassifier(bundle, engine, images)
        Task.IMAGE_EMBEDDING -> ImageEmbedder(bundle, engine, images)
        Task.IMAGE_TEXT -> ImageTextComparer(bundle, engine, images)
        else -> openTextPipeline(bundle, engine)
    }

    companion object {
        /**
         * Opens a bundle's folder, or a stored zip of it, checks all of it, and opens its engine, on a background thread.
         *
         * @param engine opens the engine; on Android, `openEngine` of edgeformer-android. A closed model closes it.
         * @param required whose bundle it must be, and which.
         * @param images decodes image files; only needed for these.
         * @throws BundleError it does not follow BUNDLE.md, or is not what is required.
         * @throws EngineError no engine runs it here.
         */
        suspend fun open(
            path: File,
            engine: (ModelBundle) -> Engine,
            required: Required = Required(),
            images: ImageDecoder = NO_IMAGES,
        ): Model = open(engine, images) { ModelBundle.open(path, required) }

        /** Opens a bundle from files of any kind, such as those among an app's assets; see the other `open`. */
        suspend fun open(
            files: () -> BundleFiles,
            engine: (ModelBundle) -> Engine,
            required: Required = Required(),
            images: ImageDecoder = NO_IMAGES,
        ): Model = open(engine, images) { ModelBundle.open(files(), required) }

        private suspend fun open(engine: (ModelBundle) -> Engine, images: ImageDecoder, open: () -> ModelBundle): Model =
            withContext(Dispatchers.IO) {
                val bundle = open()
                var model: Model? = null
                try {
                    ensureActive()
                    Model(bundle, engine(bundle), images).also { model = it }
                } finally {
                    if (model == null) bundle.close()
                }
            }

        private val NO_IMAGES = object : ImageDecoder {
            override fun decode(data: ByteArray) =
                throw InputError("no decoder of image files was given: open the model with one")
        }
    }
}
