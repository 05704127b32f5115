package org.edgeformer.core

import org.edgeformer.core.engines.Engine
import org.edgeformer.core.preprocess.ImageDecoder

/**
 * How one stage compares with the reference, at its worst over all cases.
 *
 * @property name "preprocess", a program's name, or "answer"; of speech "mel", "encode", "steps" ("step 7" where that
 *   is the first one to diverge) or "text".
 * @property maxAbs the largest absolute difference, of the case that is closest to its tolerance or farthest beyond it;
 *   null where there was nothing to compare.
 * @property cosine the smallest cosine of a case's result and its reference.
 * @property tolerance what [maxAbs] may be in that case.
 * @property ok every case is within its tolerance.
 * @property reason what the engine said where it gave no result, or what is known to be wrong, such as two labels that
 *   are exchanged; else null.
 */
data class Stage(
    val name: String,
    val maxAbs: Double?,
    val cosine: Double?,
    val tolerance: Double,
    val ok: Boolean,
    val reason: String? = null,
)

/**
 * The outcome of a verification: a bundle's self-test.
 *
 * @property executedBy what ran the programs, with its version.
 * @property stages in the order of execution.
 * @property note what the verification cannot show, null where there is nothing to say.
 */
data class Verification(val executedBy: String, val stages: List<Stage>, val note: String?) {
    /** Every stage is. */
    val ok: Boolean get() = stages.all { it.ok }

    /** The first stage that is not ok, null where all are. */
    val firstDiverging: String? get() = stages.firstOrNull { !it.ok }?.name
}

/** Replays cases of one kind and compares each stage with the reference. */
internal interface Replay {
    fun play(case: Case)

    /** What was found so far: every stage in the order of execution. */
    fun comparisons(): Map<String, List<Comparison>>
}

/**
 * Replays a bundle's recorded vectors stage by stage: the first stage that is not ok is where it diverges from the
 * source model.
 *
 * @param decoder the platform's, for the images among the vectors; needed for vision bundles only.
 * @param progress called with the number of finished cases and of all cases.
 * @throws BundleError the bundle has no vectors, or they do not follow BUNDLE.md. An engine that fails is a stage that
 *   is not ok.
 */
fun verify(
    bundle: ModelBundle,
    engine: Engine,
    decoder: ImageDecoder,
    progress: (done: Int, all: Int) -> Unit = { _, _ -> },
): Verification {
    val vectors = Vectors.read(bundle)
    val replay = if (bundle.manifest.postprocessing is Transcription) {
        SpeechReplay(bundle, engine, vectors.tolerances, vectors.cases)
    } else {
        ProgramReplay(bundle, engine, decoder, vectors.tolerances, vectors.cases)
    }
    (replay as? AutoCloseable).use {
        vectors.cases.forEachIndexed { index, case ->
            replay.play(case)
            progress(index + 1, vectors.cases.size)
        }
    }
    val stages = replay.comparisons().map { (name, found) ->
        val worst = Comparison.worst(found)
        Stage(name, worst.maxAbs, worst.cosine, worst.tolerance, worst.ok, worst.reason)
    }
    return Verification(engine.executedBy, stages, engine.notCovered)
}
