using System.Globalization;
using System.Numerics;
using LoKr.Core.IO;

namespace LoKr.Core.Chat;

/// <summary>Python's arithmetic of integers of any size, floats and Booleans.</summary>
internal static class PythonNumbers
{
    // Python writes no integers of more than 4,300 digits.
    private const int MostBits = 14_000;

    // From here on a float does not hold every integer.
    private const long Exact = 1L << 53;

    public static bool IsNumber(object? value) => value is long or double or bool or BigInteger;

    /// <summary>An integer, also of a Boolean; null for anything else.</summary>
    public static BigInteger? Whole(object? value) => value switch
    {
        long number => number,
        bool flag => flag ? 1 : 0,
        BigInteger number => number,
        _ => null,
    };

    /// <summary>The nearest float of a number; null for anything else.</summary>
    public static double? Approximate(object? value) => value switch
    {
        double number => number,
        long number => number,
        bool flag => flag ? 1 : 0,
        BigInteger number => (double)number,
        _ => null,
    };

    /// <summary>An integer as templates hold it.</summary>
    public static object Value(BigInteger number) => number >= long.MinValue && number <= long.MaxValue ? (object)(long)number : number;

    /// <summary>A float as <c>repr</c> writes it.</summary>
    public static string Text(double number) => double.IsNaN(number) ? "nan" : double.IsInfinity(number) ? (number > 0 ? "inf" : "-inf") : PythonJson.Float(number);

    /// <summary>The order of two numbers; one that holds for no comparison where one is not a number.</summary>
    public static int Compare(object? a, object? b)
    {
        if (Whole(a) is BigInteger first && Whole(b) is BigInteger second)
        {
            return first.CompareTo(second);
        }

        (double left, double right) = (Approximate(a)!.Value, Approximate(b)!.Value);
        if (double.IsNaN(left) || double.IsNaN(right))
        {
            return Unordered;
        }

        // A float is compared with an integer by its exact value.
        return Math.Abs(left) >= Exact && double.IsFinite(left) && double.IsFinite(right)
            ? (Whole(a) ?? new BigInteger(left)).CompareTo(Whole(b) ?? new BigInteger(right))
            : left.CompareTo(right);
    }

    /// <summary>The result of <see cref="Compare"/> for what is neither less, equal nor greater.</summary>
    public const int Unordered = int.MinValue;

    /// <summary>The result of an operator; null where it is not defined for the values.</summary>
    public static object? Calculate(int line, string sign, object? left, object? right)
    {
        if (Whole(left) is BigInteger a && Whole(right) is BigInteger b)
        {
            return sign switch
            {
                "+" => Checked(line, a + b),
                "-" => Checked(line, a - b),
                "*" => Checked(line, a * b),
                "/" => (object)Quotient(line, a, NotZero(line, b)),
                "//" => Value(FloorQuotient(a, NotZero(line, b))),
                "%" => Value(a - (FloorQuotient(a, NotZero(line, b)) * b)),
                _ => b < 0 ? Power(line, (double)a, (double)b) : WholePower(line, a, b),
            };
        }

        if (Approximate(left) is not double x || Approximate(right) is not double y)
        {
            return null;
        }

        return sign switch
        {
            "+" => (object)(x + y),
            "-" => x - y,
            "*" => x * y,
            "/" => x / NotZero(line, y),
            "//" => FloorQuotient(x, NotZero(line, y)),
            "%" => Remainder(x, NotZero(line, y)),
            _ => Power(line, x, y),
        };
    }

    public static object? Negative(object? value) => value switch
    {
        double number => -number,
        _ => Whole(value) is BigInteger number ? Value(-number) : null,
    };

    /// <summary>Reads an integer as <c>int(text, base)</c> does; null where the text is none.</summary>
    public static object? ReadWhole(string text, int radix)
    {
        string digits = PythonText.Strip(text, null, left: true, right: true);
        bool isNegative = digits.StartsWith('-');
        digits = digits.StartsWith('-') || digits.StartsWith('+') ? digits[1..] : digits;
        if (digits.Length > 1 && digits[0] == '0' && char.ToLowerInvariant(digits[1]) == radix switch { 2 => 'b', 8 => 'o', 16 => 'x', _ => '\0' })
        {
            digits = digits[2..].TrimStart('_');
        }

        if (digits.Length == 0 || digits.StartsWith('_') || digits.EndsWith('_') || digits.Contains("__", StringComparison.Ordinal))
        {
            return null;
        }

        BigInteger number = 0;
        foreach (char c in digits)
        {
            int digit = c == '_' ? -1 : char.IsDigit(c) ? (int)char.GetNumericValue(c) : char.IsAsciiLetter(c) ? char.ToLowerInvariant(c) - 'a' + 10 : radix;
            if (digit >= radix || number.GetBitLength() > MostBits)
            {
                return null;
            }

            number = digit < 0 ? number : (number * radix) + digit;
        }

        return Value(isNegative ? -number : number);
    }

    /// <summary>Reads a float as <c>float(text)</c> does; null where the text is none.</summary>
    public static double? ReadFloat(string text)
    {
        string digits = PythonText.Strip(text, null, left: true, right: true);
        string name = digits.TrimStart('+', '-').ToLowerInvariant();
        if (digits.Length - name.Length <= 1 && name is "inf" or "infinity" or "nan")
        {
            return name == "nan" ? double.NaN : digits.StartsWith('-') ? double.NegativeInfinity : double.PositiveInfinity;
        }

        for (int i = 0; i < digits.Length; i++)
        {
            if (digits[i] == '_' && (i == 0 || i == digits.Length - 1 || !char.IsAsciiDigit(digits[i - 1]) || !char.IsAsciiDigit(digits[i + 1])))
            {
                return null;
            }
        }

        const NumberStyles Styles = NumberStyles.AllowLeadingSign | NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent;
        return double.TryParse(digits.Replace("_", "", StringComparison.Ordinal), Styles, CultureInfo.InvariantCulture, out double number) ? number : null;
    }

    /// <summary>The whole number that a float is cut to.</summary>
    public static object Cut(double number) => Value(new BigInteger(Math.Truncate(number)));

    /// <summary>A float with so many decimals, rounded half to even from its exact value.</summary>
    public static string Fixed(double number, int decimals)
    {
        long bits = BitConverter.DoubleToInt64Bits(Math.Abs(number));
        int exponent = Math.Max((int)(bits >> 52), 1) - 1075;
        BigInteger mantissa = (bits & ((1L << 52) - 1)) + ((bits >> 52) > 0 ? 1L << 52 : 0);
        BigInteger numerator = mantissa * BigInteger.Pow(10, Math.Max(decimals, 0)) * (exponent > 0 ? BigInteger.One << exponent : 1);
        BigInteger denominator = BigInteger.Pow(10, Math.Max(-decimals, 0)) * (exponent < 0 ? BigInteger.One << -exponent : 1);
        (BigInteger quotient, BigInteger rest) = BigInteger.DivRem(numerator, denominator);
        int half = (rest * 2).CompareTo(denominator);
        quotient += half > 0 || (half == 0 && !quotient.IsEven) ? 1 : 0;
        string digits = quotient.ToString(CultureInfo.InvariantCulture);
        string text = decimals > 0 ? digits.PadLeft(decimals + 1, '0').Insert(Math.Max(digits.Length, decimals + 1) - decimals, ".")
            : quotient.IsZero ? "0" : digits + new string('0', -decimals);
        return double.IsNegative(number) ? "-" + text : text;
    }

    /// <summary>A float rounded to so many decimals.</summary>
    public static double Round(double number, int decimals) => !double.IsFinite(number) || decimals > 323 ? number
        : decimals < -308 ? Math.CopySign(0, number)
        : double.Parse(Fixed(number, decimals), CultureInfo.InvariantCulture);

    private static object Checked(int line, BigInteger number) =>
        number.GetBitLength() <= MostBits ? Value(number) : throw TemplateError.Limit(line, "a number is too large");

    private static object WholePower(int line, BigInteger number, BigInteger exponent) => number.IsZero || number.IsOne || (long)number.GetBitLength() * exponent <= MostBits
        ? Value(BigInteger.Pow(number, (int)BigInteger.Min(exponent, int.MaxValue)))
        : throw TemplateError.Limit(line, "a number is too large");

    private static double Power(int line, double number, double exponent) => number == 0 && exponent < 0 ? throw TemplateError.Failed(line, "0 has no negative power")
        : number < 0 && exponent != Math.Floor(exponent) ? throw TemplateError.Unsupported(line, "a root of a negative number")
        : Math.Pow(number, exponent);

    private static double Quotient(int line, BigInteger a, BigInteger b) => BigInteger.Abs(a) <= Exact && BigInteger.Abs(b) <= Exact
        ? (double)a / (double)b
        : throw TemplateError.Unsupported(line, "a division of integers above 2 to the power of 53");

    private static BigInteger FloorQuotient(BigInteger a, BigInteger b)
    {
        (BigInteger quotient, BigInteger rest) = BigInteger.DivRem(a, b);
        return rest.IsZero || rest.Sign == b.Sign ? quotient : quotient - 1;
    }

    private static double Remainder(double a, double b)
    {
        double rest = a % b;
        return rest == 0 ? Math.CopySign(0, b) : rest < 0 == b < 0 ? rest : rest + b;
    }

    private static double FloorQuotient(double a, double b)
    {
        double rest = a % b;
        double quotient = (a - rest) / b;
        quotient -= rest != 0 && rest < 0 != b < 0 ? 1 : 0;
        if (quotient == 0)
        {
            return Math.CopySign(0, a / b);
        }

        double floor = Math.Floor(quotient);
        return quotient - floor > 0.5 ? floor + 1 : floor;
    }

    private static BigInteger NotZero(int line, BigInteger value) => !value.IsZero ? value : throw TemplateError.Failed(line, "a number is divided by 0");

    private static double NotZero(int line, double value) => value != 0 ? value : throw TemplateError.Failed(line, "a number is divided by 0");
}
