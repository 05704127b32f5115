import Foundation

/// Audio as vectors store it: a WAV file of one channel and 16 bits.
enum Audio {
    /// The first `count` samples of a WAV file, from -1 to 1.
    ///
    /// - Throws: `InputError`: another format or rate, or fewer samples.
    static func readWav(_ data: Data, sampleRate: Int, count: Int, file: String) throws -> [Float] {
        func number(_ offset: Int, _ bytes: Int) -> Int {
            data.dropFirst(offset).prefix(bytes).reversed().reduce(0) { $0 << 8 | Int($1) }
        }
        func text(_ offset: Int) -> String { String(decoding: data.dropFirst(offset).prefix(4), as: UTF8.self) }
        guard data.count >= 12, text(0) == "RIFF", text(8) == "WAVE" else {
            throw InputError("\(file): expected a WAV file")
        }
        var position = 12
        while position + 8 <= data.count {
            let (name, size, content) = (text(position), number(position + 4, 4), position + 8)
            if name == "fmt " {
                let found = (format: number(content, 2), channels: number(content + 2, 2), rate: number(content + 4, 4))
                guard found == (1, 1, sampleRate), number(content + 14, 2) == 16 else {
                    throw InputError("\(file): expected one channel of 16 bits at \(sampleRate) Hz")
                }
            } else if name == "data" {
                guard 2 * count <= size, content + 2 * count <= data.count else {
                    throw InputError("\(file): expected \(count) samples, found \(min(size, data.count - content) / 2)")
                }
                return data.dropFirst(content).prefix(2 * count).withUnsafeBytes { raw in
                    (0..<count).map {
                        Float(Int16(littleEndian: raw.loadUnaligned(fromByteOffset: 2 * $0, as: Int16.self))) / 32768
                    }
                }
            }
            position = content + size + size % 2
        }
        throw InputError("\(file): the WAV file has no samples")
    }
}
