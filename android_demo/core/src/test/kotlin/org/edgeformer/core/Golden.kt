package org.edgeformer.core

import org.junit.jupiter.api.DynamicTest
import java.io.File

/** The files of tests/golden, which every language reads unchanged; its README says what is in them. */
object Golden {
    private val folder = File(System.getProperty("edgeformer.golden") ?: "../../tests/golden").absoluteFile

    /** The repository, for the files that golden ones name. */
    val repository: File = folder.parentFile.parentFile

    fun file(name: String) = File(folder, name)

    fun json(name: String): Json = Json(StrictJson.parse(file(name).readBytes(), name, 16 shl 20))

    fun tensors(name: String): Map<String, Tensor> = Folder(file("")).map(name).let { Safetensors.read(it, name) }

    /** A test for each case of a file. */
    fun tests(cases: List<Json>, name: (Int, Json) -> String, check: (Int, Json) -> Unit): List<DynamicTest> =
        cases.mapIndexed { index, case -> DynamicTest.dynamicTest(name(index, case)) { check(index, case) } }
}

/** A parsed value, read by whoever knows what is in it. */
class Json(val value: Any?) {
    operator fun get(key: String) = Json(fields.getValue(key))

    @Suppress("UNCHECKED_CAST")
    private val fields: Map<String, Any?> get() = value as Map<String, Any?>

    val isNull: Boolean get() = value == null
    val keys: Set<String> get() = fields.keys
    val list: List<Json> get() = (value as List<*>).map { Json(it) }
    val text: String get() = value as String
    val textOrNull: String? get() = value as String?
    val boolean: Boolean get() = value as Boolean
    val int: Int get() = (value as Long).toInt()
    val ints: List<Int> get() = list.map { it.int }
    val double: Double get() = (value as Number).toDouble()
    val doubleOrNull: Double? get() = (value as Number?)?.toDouble()

    operator fun contains(key: String) = key in fields

    /** As the manifest's own reader takes it. */
    internal fun <T> read(read: (Fields) -> T): T = Fields.read(value, "golden", read)
}
