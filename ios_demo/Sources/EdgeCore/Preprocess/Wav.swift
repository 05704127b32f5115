import Foundation

/// The samples of a wav file: 8 to 32 bits (PCM), or 32 or 64 bits (float), plain or extensible, at any rate.
public final class WavSource: AudioSource {
    public let sampleRate: Int
    public let channels: Int
    let bits: Int
    private let isFloat: Bool
    private let data: Data
    private var next: Int
    private let end: Int

    /// What programs that write a wav into a pipe put where its size belongs.
    private static let unknownSizes: Set = [0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000]
    /// More than what is known to follow the samples of a wav that has none, such as a title.
    private static let unfinishedBytes = 4096

    /// A file's bytes; `Data(contentsOf:options:)` with `.mappedIfSafe` reads a long one piece by piece.
    ///
    /// - Throws: `InputError`: not a wav file, another coding, or cut short, or its recorder did not finish it.
    public init(_ data: Data) throws {
        self.data = data
        guard data.count >= 12, Self.name(data, 0) == "RIFF", Self.name(data, 8) == "WAVE" else {
            throw InputError("the audio is not a wav file")
        }
        var format: Int?
        var position = 12
        while position + 8 <= data.count, Self.name(data, position) != "data" {
            let size = Self.number(data, position + 4, 4)
            if Self.name(data, position) == "fmt " {
                guard size >= 16 else { throw InputError("the wav file's format is corrupted") }
                format = position + 8
            }
            position += 8 + size + size % 2
        }
        guard position + 8 <= data.count else { throw InputError("the wav file was cut short: it has no samples") }
        guard let format else { throw InputError("the wav file states no format") }
        channels = Self.number(data, format + 2, 2)
        sampleRate = Self.number(data, format + 4, 4)
        bits = Self.number(data, format + 14, 2)
        let coding = Self.number(data, format, 2)
        let kind = coding == 0xFFFE ? Self.number(data, format + 24, 2) : coding
        isFloat = kind == 3
        guard kind == 1 && [8, 16, 24, 32].contains(bits) || isFloat && [32, 64].contains(bits) else {
            throw InputError("the wav file has coding \(kind) with \(bits) bits: expected PCM or float")
        }
        guard Self.number(data, format + 12, 2) == channels * bits / 8, channels > 0 else {
            throw InputError("the wav file's format is corrupted")
        }
        next = position + 8
        let (stated, found) = (Self.number(data, position + 4, 4), data.count - position - 8)
        if stated == 0, found > Self.unfinishedBytes {
            throw InputError("the wav file states that it has no samples, but bytes follow: its recorder was stopped")
        }
        if stated > found, !Self.unknownSizes.contains(stated) {
            throw InputError("the wav file was cut short: \(stated - found) bytes are missing")
        }
        end = next + min(stated, found)
    }

    /// The next frames; see `AudioSource`.
    public func read(_ count: Int) -> [Float] {
        let frameBytes = channels * bits / 8
        let frames = min(count, (end - next) / frameBytes)
        let block = data.dropFirst(next).prefix(frames * frameBytes)
        next += frames * frameBytes
        return block.withUnsafeBytes { raw in (0..<frames * channels).map { sample(raw, $0) } }
    }

    private func sample(_ raw: UnsafeRawBufferPointer, _ index: Int) -> Float {
        func load<Word: FixedWidthInteger>(_: Word.Type) -> Word {
            Word(littleEndian: raw.loadUnaligned(fromByteOffset: index * MemoryLayout<Word>.size, as: Word.self))
        }
        switch (bits, isFloat) {
        case (32, true): return Float(bitPattern: load(UInt32.self))
        case (_, true): return Float(Double(bitPattern: load(UInt64.self)))
        case (8, _): return (Float(raw[index]) - 128) / 128
        case (16, _): return Float(load(Int16.self)) / 32768
        case (24, _):
            let low = Int32(raw[3 * index]) | Int32(raw[3 * index + 1]) << 8
            return Float(low | Int32(Int8(bitPattern: raw[3 * index + 2])) << 16) / 8_388_608
        default: return Float(Double(load(Int32.self)) / 2_147_483_648)
        }
    }

    /// Zero behind the end.
    private static func number(_ data: Data, _ offset: Int, _ bytes: Int) -> Int {
        data.dropFirst(offset).prefix(bytes).reversed().reduce(0) { $0 << 8 | Int($1) }
    }

    private static func name(_ data: Data, _ offset: Int) -> String {
        String(decoding: data.dropFirst(offset).prefix(4), as: UTF8.self)
    }
}

extension WavSource {
    /// The first `count` samples of a recorded vector: one channel of 16 bits at `sampleRate`.
    ///
    /// - Throws: `InputError`: another format or rate, or fewer samples.
    static func recorded(_ data: Data, sampleRate: Int, count: Int, file: String) throws -> [Float] {
        let wav = try WavSource(data)
        guard (wav.channels, wav.bits, wav.sampleRate) == (1, 16, sampleRate) else {
            throw InputError("\(file): expected one channel of 16 bits at \(sampleRate) Hz")
        }
        let samples = wav.read(count)
        guard samples.count == count else {
            throw InputError("\(file): expected \(count) samples, found \(samples.count)")
        }
        return samples
    }
}
