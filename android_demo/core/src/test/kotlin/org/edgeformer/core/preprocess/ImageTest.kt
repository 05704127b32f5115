package org.edgeformer.core.preprocess

import org.edgeformer.core.ByteTensor
import org.edgeformer.core.FloatTensor
import org.edgeformer.core.Golden
import org.edgeformer.core.InputError
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.TestFactory

class ImageTest {
    private val cases = Golden.json("image.json")["cases"].list
    private val tensors = Golden.tensors("image.safetensors")

    @TestFactory
    fun `bit for bit as Pillow`() = Golden.tests(cases, { _, case -> case["name"].text }) { index, case ->
        val spec = case["preprocessing"].read { fields -> fields.skip("kind").let { ImagePreprocessing.read(fields) } }
        val source = tensors.getValue("$index/image") as ByteTensor
        val image = RgbImage(source.shape[1], source.shape[0], source.data)
        val levels = (tensors.getValue("$index/levels") as ByteTensor).data
        val table = (tensors.getValue("$index/table") as FloatTensor).toArray()
        assertArrayEquals(levels, ImageEncoder(spec).levels(image))
        assertArrayEquals(table, normalisationTable(spec).flatMap { it.toList() }.toFloatArray())
        val pixels = ImageEncoder(spec).encode(image)
        assertEquals(listOf(1, 3, spec.height, spec.width), pixels.shape)
        val plane = spec.height * spec.width
        val expected = FloatArray(levels.size) { table[256 * (it / plane) + (levels[it].toInt() and 0xFF)] }
        assertArrayEquals(expected, pixels.toArray())
    }

    @Test
    fun `what is no image`() {
        assertThrows(InputError::class.java) { RgbImage(0, 1, ByteArray(0)) }
        assertThrows(InputError::class.java) { RgbImage(2, 2, ByteArray(11)) }
        assertThrows(InputError::class.java) { RgbImage(50_000, 50_000, ByteArray(0)) }
    }
}
