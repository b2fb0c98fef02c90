import Glibc

/// A moment of the wall clock, in microseconds since 1970-01-01T00:00:00Z.
public struct Timestamp: Hashable, Sendable {
    public var microseconds: Int64

    public init(microseconds: Int64) {
        self.microseconds = microseconds
    }

    public static func now() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(microseconds: Int64(time.tv_sec) * 1_000_000 + Int64(time.tv_nsec) / 1000)
    }
}

extension Timestamp {
    /// RFC 3339 in UTC with microseconds, `2026-11-21T07:22:32.000123Z`, as ASCII.
    func append(to bytes: inout LineBytes) {
        let (seconds, fraction) = microseconds.flooredDivision(by: 1_000_000)
        let (days, second) = seconds.flooredDivision(by: 86400)
        let date = Timestamp.civil(day: days)
        bytes.append(decimal: UInt64(max(0, date.year)), width: 4)
        bytes.append("-")
        bytes.append(decimal: UInt64(date.month), width: 2)
        bytes.append("-")
        bytes.append(decimal: UInt64(date.day), width: 2)
        bytes.append("T")
        bytes.append(decimal: UInt64(second / 3600), width: 2)
        bytes.append(":")
        bytes.append(decimal: UInt64(second / 60 % 60), width: 2)
        bytes.append(":")
        bytes.append(decimal: UInt64(second % 60), width: 2)
        bytes.append(".")
        bytes.append(decimal: UInt64(fraction), width: 6)
        bytes.append("Z")
    }

    /// The date of a day counted from 1970-01-01. Years are taken to begin in March, so that the leap day is the last
    /// of its year and months have the lengths of one repeating pattern of five.
    private static func civil(day: Int64) -> (year: Int64, month: Int64, day: Int64) {
        let daysOf400Years: Int64 = 146_097
        // 0000-03-01 is 719468 days before 1970-01-01.
        let (era, ofEra) = (day + 719_468).flooredDivision(by: daysOf400Years)
        let leapsBefore = ofEra / 1460 - ofEra / 36524 + ofEra / (daysOf400Years - 1)
        let yearOfEra = (ofEra - leapsBefore) / 365
        let ofYear = ofEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let fromMarch = (5 * ofYear + 2) / 153
        let dayOfMonth = ofYear - (153 * fromMarch + 2) / 5 + 1
        let month = fromMarch < 10 ? fromMarch + 3 : fromMarch - 9
        return (era * 400 + yearOfEra + (month <= 2 ? 1 : 0), month, dayOfMonth)
    }
}

extension Int64 {
    fileprivate func flooredDivision(by divisor: Int64) -> (quotient: Int64, remainder: Int64) {
        let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
    }
}
