import Foundation

/// The checksum of zip files (APPNOTE.TXT, section 4.4.7), which Foundation does not have.
enum Crc32 {
    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { rest, _ in rest & 1 == 1 ? 0xEDB8_8320 ^ rest >> 1 : rest >> 1 }
    }

    /// The checksum of some bytes.
    static func of(_ data: Data) -> UInt32 {
        let table = Self.table
        return data.withUnsafeBytes { bytes in
            ~bytes.reduce(~UInt32(0)) { rest, byte in table[Int(UInt8(truncatingIfNeeded: rest) ^ byte)] ^ rest >> 8 }
        }
    }
}
