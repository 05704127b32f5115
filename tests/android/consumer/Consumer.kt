package org.example

import java.io.File
import kotlinx.coroutines.runBlocking
import org.edgeformer.core.Model
import org.edgeformer.core.engines.RecordedEngine

/** Answers a text with a bundle's recorded vectors. */
fun main(arguments: Array<String>) = runBlocking {
    Model.open(File(arguments[0]), ::RecordedEngine).use { model ->
        val result = model.classify(arguments[1])
        println("${result.label} ${result.score} ${model.verify().ok}")
    }
}
