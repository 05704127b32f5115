import XCTest

@testable import EdgeFormer

final class DecodingTests: XCTestCase {
    private func spec(multilingual: Bool) throws -> Transcription {
        let golden = try Golden.json("decoding.json")
        let spec = try ManifestReader.transcription((golden["transcription"], "transcription"))
        guard multilingual else { return spec }
        let tokens = try ManifestReader.speechTokens((golden["multilingual_tokens"], "multilingual_tokens"))
        return try Transcription(
            tokenizer: spec.tokenizer, tokens: tokens, suppress: spec.suppress, suppressAtStart: spec.suppressAtStart,
            vocabSize: spec.vocabSize, layers: spec.layers, heads: spec.heads, headDim: spec.headDim,
            alignmentHeads: spec.alignmentHeads, prefillTokens: spec.prefillTokens, state: spec.state,
            secondsPerTimestamp: spec.secondsPerTimestamp, maxInitialTimestamp: spec.maxInitialTimestamp,
            buckets: spec.buckets)
    }

    func testRulesAsInTransformers() throws {
        let spec = try spec(multilingual: false)
        for item in try Golden.cases("decoding.json") where item["kind"].text == "rules" {
            let rules = LogitRules(spec, timestamps: item["timestamps"].flag)
            var logits = item["logits"].doubles.map { Float($0) }
            rules.apply(&logits, said: item["said"].ints)
            let allowed = item["allowed"].items.flatMap { Array($0[0].int...$0[1].int) }
            XCTAssertEqual(logits.indices.filter { logits[$0].isFinite }, allowed)
            let token = Greedy.likeliest(logits)
            XCTAssertEqual(token, item["token"].int)
            let found = Double(logits[token]) - (try rules.logNormalizer(logits, largest: logits[token]))
            XCTAssertEqual(found, item["log_probability"].double, accuracy: 1e-4)
        }
    }

    func testSkippedSentencesAreHeardAgain() throws {
        for item in try Golden.cases("decoding.json") where item["kind"].text == "skipped" {
            let spans = Spans(item["times"].items.map { Span(start: $0[0].double, end: $0[1].double, entries: []) })
            let sounding = item["sounding"].items.map { $0[0].double..<$0[1].double }
            let found = spans.cutAtSkipped(letters: item["letters"].ints, sounding) ?? spans
            let expected = item["cut"].items.map { Span(start: $0[0].double, end: $0[1].double, entries: []) }
            let resume = item["resume"].isNull ? nil : item["resume"].double
            XCTAssertEqual(found, Spans(expected, resume: resume))
        }
    }

    func testLoops() throws {
        for item in try Golden.cases("decoding.json") where item["kind"].text == "loop" {
            let found = Repetition.loopPeriod(item["said"].ints, stretches: item["stretches"].int)
            XCTAssertEqual(found, item["period"].int)
        }
    }

    func testTimesFitToPauses() throws {
        for item in try Golden.cases("decoding.json") where item["kind"].text == "times" {
            let spans = Spans(item["times"].items.map { Span(start: $0[0].double, end: $0[1].double, entries: []) })
            let found = spans.fitted(to: item["sounding"].items.map { $0[0].double..<$0[1].double })
            let expected = item["fitted"].items.map { Span(start: $0[0].double, end: $0[1].double, entries: []) }
            XCTAssertEqual(found, expected, item["name"].text ?? "")
        }
    }

    func testJoinedTexts() throws {
        for item in try Golden.cases("decoding.json") where item["kind"].text == "join" {
            XCTAssertEqual(SpeechTokenizer.join(item["texts"].items.compactMap(\.text)), item["joined"].text)
        }
    }

    func testWindows() throws {
        let golden = try Golden.json("decoding.json")
        for item in try Golden.items(golden["cases"]) where item["kind"].text == "window" {
            let name = item["name"].text ?? ""
            let spec = try spec(multilingual: item["multilingual"].flag)
            let data = Data(try XCTUnwrap(golden["tokenizer"].text).utf8)
            let tokenizer = try SpeechTokenizer(data, end: spec.tokens.end, file: "tokenizer.json")
            var options = TranscribeOptions()
            options.language = item["language"].text
            options.task = try XCTUnwrap(SpeechTask(rawValue: item["task"].text ?? ""))
            options.timestamps = item["timestamps"].flag
            options.maxTokens = item["max_tokens"].int
            let expected = item["expected"]
            let promptLength = expected["prompt"].items.count
            let decoder = ScriptedDecoder(item, spec, promptLength: promptLength)
            let isDetected = !spec.tokens.languages.isEmpty && options.language == nil
            let language = isDetected ? try detectLanguage(decoder, spec.tokens) : options.language ?? "en"
            XCTAssertEqual(language, expected["language"].text, name)
            let prompt = try Prompt(spec.tokens, options, language: try XCTUnwrap(language))
            XCTAssertEqual(prompt.tokens, expected["prompt"].ints, name)
            let search = Greedy(
                decoder: decoder, context: try Context(decoder, prompt),
                rules: LogitRules(spec, timestamps: options.timestamps), tokens: spec.tokens,
                maxTokens: options.maxTokens)
            let decoded = try Decoded(search, tokenizer, options, soundingSeconds: item["seconds"].double)
            try check(decoded, item, spec, tokenizer)
        }
    }

    private func check(_ decoded: Decoded, _ item: JsonValue, _ spec: Transcription, _ tokenizer: SpeechTokenizer)
        throws
    {
        let (expected, name) = (item["expected"], item["name"].text ?? "")
        let found = decoded.hypothesis
        XCTAssertEqual(found.tokens, expected["tokens"].ints, name)
        XCTAssertEqual(found.ended, expected["ended"].flag, name)
        XCTAssertEqual(found.looped, expected["looped"].flag, name)
        XCTAssertEqual(decoded.isSilent, expected["silent"].flag, name)
        XCTAssertEqual(decoded.isDoubtful, expected["doubtful"].flag, name)
        XCTAssertEqual(decoded.text, expected["text"].text, name)
        if !expected["silent"].flag {
            XCTAssertEqual(found.meanLogProbability, expected["mean_log_probability"].double, accuracy: 1e-4, name)
        }
        if let noSpeech = decoded.noSpeechProbability {
            XCTAssertEqual(Double(noSpeech), expected["no_speech_probability"].double, accuracy: 1e-6, name)
        }
        let spans = Spans(found.tokens, spec, seconds: item["seconds"].double)
        XCTAssertEqual(spans.segments.count, expected["segments"].items.count, name)
        for (span, segment) in zip(spans.segments, expected["segments"].items) {
            XCTAssertEqual(span.start, segment["start"].double, accuracy: 1e-9, name)
            XCTAssertEqual(span.end, segment["end"].double, accuracy: 1e-9, name)
            let text = try tokenizer.text(span.entries.map { found.tokens[$0] }).stripped()
            XCTAssertEqual(text, segment["text"].text, name)
        }
        XCTAssertEqual(spans.resume, expected["resume"].isNull ? nil : expected["resume"].double, name)
    }
}

/// Gives the logits of a golden file's script, whatever it is fed.
private final class ScriptedDecoder: SpeechDecoder {
    let rows = 64
    let prefillTokens: Int
    private let script: JsonValue
    private let vocabSize: Int
    private let promptLength: Int

    init(_ script: JsonValue, _ spec: Transcription, promptLength: Int) {
        self.script = script
        self.promptLength = promptLength
        (vocabSize, prefillTokens) = (spec.vocabSize, spec.prefillTokens)
    }

    func encode(_ mel: Tensor) {}

    func step(_ token: Int, position: Int, row: Int, mask: [Float]) -> DecoderOutput { output(after: position) }

    func prefill(
        _ tokens: [Int], position: Int, row: Int, mask: [Float], wanted: (Int, Int)
    ) -> (DecoderOutput, DecoderOutput) {
        let first = wanted.0 == 0 && position == 0 ? logits(script["start"]) : output(after: position + wanted.0)
        return (first, output(after: position + wanted.1))
    }

    private func output(after position: Int) -> DecoderOutput {
        if position == 0, promptLength > 1 { return logits(script["detect"]) }
        let step = position + 1 - promptLength
        let steps = script["steps"].items
        return logits(step < 0 ? .null : steps[min(step, steps.count - 1)])
    }

    /// Pairs of tokens and values; all others are 0.
    private func logits(_ pairs: JsonValue) -> DecoderOutput {
        var values = [Float](repeating: 0, count: vocabSize)
        for pair in pairs.items { values[pair[0].int] = Float(pair[1].double) }
        return DecoderOutput(logits: values)
    }
}
