/// The rows of a decoder's cache that a hypothesis sees, as an additive attention mask.
enum Rows {
    static let seen: Float = 0
    /// Finite and far inside float16; exp of it is 0 for every spread of scores below 900.
    static let hidden: Float = -1000

    /// A mask (L) that hides every row.
    static func allHidden(_ rows: Int) -> [Float] { [Float](repeating: hidden, count: rows) }
}
