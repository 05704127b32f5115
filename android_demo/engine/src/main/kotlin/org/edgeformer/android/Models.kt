package org.edgeformer.android

import android.content.Context
import android.graphics.Bitmap
import android.net.Uri
import java.io.File
import org.edgeformer.core.Model
import org.edgeformer.core.ModelBundle
import org.edgeformer.core.Required
import org.edgeformer.core.decoding.TranscribeOptions
import org.edgeformer.core.pipelines.ClassificationResult
import org.edgeformer.core.pipelines.EmbeddingResult
import org.edgeformer.core.pipelines.ScoreResult
import org.edgeformer.core.pipelines.Transcript
import org.edgeformer.engine.defaultThreads
import org.edgeformer.engine.openEngine

/** In the app's cache: copies of model files that an engine can only open by a path. */
private const val COPIES = "edgeformer"

/**
 * Opens a bundle's folder among the app's assets, which must be stored uncompressed (`noCompress`); see `Model.open`.
 *
 * @param folder such as "bundles/intents.litert.dynamic-int8".
 */
suspend fun Model.Companion.fromAssets(
    context: Context,
    folder: String,
    required: Required = Required(),
    threads: Int = defaultThreads(),
): Model = open({ AssetFolder(context.assets, folder) }, engineOf(context, threads), required, Photo(context.cacheDir))

/** Opens a bundle's folder, or a stored zip of it, where only the app writes; see `Model.open`. */
suspend fun Model.Companion.fromFile(
    context: Context,
    path: File,
    required: Required = Required(),
    threads: Int = defaultThreads(),
): Model = open(path, engineOf(context, threads), required, Photo(context.cacheDir))

/** Labels of the bundle for an opaque bitmap, best first. */
suspend fun Model.classify(bitmap: Bitmap): ClassificationResult = classify(toRgb(bitmap))

/** Labels of the call for a bitmap, best first, by a model of images and texts; see `classify` of an image. */
suspend fun Model.classify(bitmap: Bitmap, labels: List<String>, template: String? = null): ClassificationResult =
    classify(toRgb(bitmap), labels, template)

/** The embedding of a bitmap. */
suspend fun Model.embed(bitmap: Bitmap): EmbeddingResult = embed(toRgb(bitmap))

/** The cosine of a bitmap and a text, by a model of images and texts. */
suspend fun Model.score(bitmap: Bitmap, query: String): ScoreResult = score(toRgb(bitmap), query)

/** What is said in a recording that another app offers: wav, and what this phone decodes (m4a, mp3, ogg and others). */
suspend fun Model.transcribe(
    context: Context,
    recording: Uri,
    options: TranscribeOptions = TranscribeOptions(),
    progress: (seconds: Double) -> Unit = {},
): Transcript = transcribe(options, progress) { sampleRate -> openRecording(context, recording, sampleRate) }

private fun engineOf(context: Context, threads: Int) =
    { bundle: ModelBundle -> openEngine(bundle, File(context.cacheDir, COPIES), threads) }
