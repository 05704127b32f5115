package org.edgeformer.demo

import android.os.Build
import org.edgeformer.core.EdgeFormerError
import org.edgeformer.core.Verification
import org.json.JSONArray
import org.json.JSONObject

/** What became of a bundle on the Bench screen: a measurement, or why there is none. */
sealed class BenchRow {
    /** The bundle's name. */
    abstract val name: String

    /** It was measured. */
    class Measured(val measurement: Measurement) : BenchRow() {
        override val name get() = measurement.name
    }

    /** It cannot be used. */
    class Failed(override val name: String, val error: EdgeFormerError) : BenchRow()
}

/** All rows with the device that they were measured on, as JSON, which `edgeformer bench --on adb://` reads. */
fun report(rows: List<BenchRow>): String {
    val device = JSONObject()
        .put("manufacturer", Build.MANUFACTURER)
        .put("model", Build.MODEL)
        .put("android", Build.VERSION.RELEASE)
        .put("api", Build.VERSION.SDK_INT)
        .put("abis", JSONArray(Build.SUPPORTED_ABIS.asList()))
    val bundles = JSONArray(rows.map(::row))
    return JSONObject().put("device", device).put("bundles", bundles).toString(2)
}

private fun row(row: BenchRow): JSONObject = when (row) {
    is BenchRow.Failed -> JSONObject().put("name", row.name).put("error", row.error.message)
    is BenchRow.Measured -> with(row.measurement) {
        JSONObject()
            .put("name", name)
            .put("engine", manifest.target.key)
            .put("executed_by", executedBy)
            .put("precision", manifest.precision)
            .put("program", program)
            .put("attention", manifest.attention)
            .put("weights_sha256", manifest.source.weightsSha256)
            .put("threads", threads)
            .put("latency_ms", JSONObject().put("median", medianMs).put("p90", p90Ms).put("runs", runs))
            .put("load_ms", loadMs)
            .put("memory_mb", memoryMb)
            .put("size_bytes", sizeBytes)
            .put("verification", verified(verification))
    }
}

private fun verified(verification: Verification): JSONObject {
    val stages = verification.stages.map { stage ->
        JSONObject()
            .put("name", stage.name)
            .put("max_abs", number(stage.maxAbs))
            .put("cosine", number(stage.cosine))
            .put("tolerance", stage.tolerance)
            .put("ok", stage.ok)
    }
    return JSONObject()
        .put("ok", verification.ok)
        .put("first_diverging", verification.firstDiverging ?: JSONObject.NULL)
        .put("stages", JSONArray(stages))
}

/** JSON has no NaN: a figure that could not be computed is null. */
private fun number(value: Double?): Any =
    value?.takeUnless { it.isNaN() || it.isInfinite() } ?: JSONObject.NULL
