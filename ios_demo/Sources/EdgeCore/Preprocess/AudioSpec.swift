/// What a speech model expects of its audio (Radford et al. 2022, section 2.2), as data.
public struct AudioPreprocessing: Equatable, Sendable {
    /// Of the model, in Hz.
    public let sampleRate: Int
    /// Samples of one frame, under a periodic Hann window.
    public let nFft: Int
    /// Samples from one frame to the next; an encoder position is two frames.
    public let hopLength: Int
    /// Bands of the mel scale.
    public let nMels: Int
    /// The bundle's file with the filter bank, (nMels, nFft / 2 + 1).
    public let melFilters: String
    /// The longest audio that one run of the model takes.
    public let windowSeconds: Int
    /// What powers are raised to before the logarithm (base 10).
    public let logFloor: Double
    /// How far below the largest value of the window others may lie, in powers of ten.
    public let dynamicRange: Double

    init(
        sampleRate: Int, nFft: Int, hopLength: Int, nMels: Int, melFilters: String, windowSeconds: Int,
        logFloor: Double,
        dynamicRange: Double
    ) throws {
        guard nFft % 2 == 0, hopLength <= nFft else {
            throw BundleError("audio: expected an even n_fft of at least hop_length, found \(nFft) and \(hopLength)")
        }
        self.sampleRate = sampleRate
        self.nFft = nFft
        self.hopLength = hopLength
        self.nMels = nMels
        self.melFilters = melFilters
        self.windowSeconds = windowSeconds
        self.logFloor = logFloor
        self.dynamicRange = dynamicRange
    }

    /// Samples that one position of the encoder stands for: two frames, as its second convolution has stride 2.
    public var samplesPerPosition: Int { 2 * hopLength }

    /// Samples of the longest audio that one run takes.
    public var windowSamples: Int { windowSeconds * sampleRate }
}
