using System.Globalization;
using System.Text;

namespace LoKr.Models.Tokenization.Patterns;

/// <summary>
/// Classes of code points as the tokenizers library of Hugging Face defines them (Rust's <c>char</c> methods, its regex
/// crate's <c>\w</c> and the general categories of Unicode).
/// </summary>
internal static class CharacterClass
{
    /// <summary>Cc, Cf or Co. BERT's clean-up removes these, except tab, line feed and carriage return.</summary>
    public static bool IsOther(Rune rune) => Rune.GetUnicodeCategory(rune)
        is UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.PrivateUse && !ReferenceUnicode.NoFormat.Contains(rune);

    /// <summary>Mn.</summary>
    public static bool IsNonspacingMark(Rune rune) => Rune.GetUnicodeCategory(rune) == UnicodeCategory.NonSpacingMark
        ? !ReferenceUnicode.NoNonspacingMark.Contains(rune)
        : ReferenceUnicode.NonspacingMark.Contains(rune);

    /// <summary>Mn, Mc or Me.</summary>
    public static bool IsMark(Rune rune) => Rune.GetUnicodeCategory(rune)
        is UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark
        ? !ReferenceUnicode.NoMark.Contains(rune)
        : ReferenceUnicode.Mark.Contains(rune);

    /// <summary>Any of P*, and every ASCII sign that is neither letter, digit, space nor control character.</summary>
    public static bool IsPunctuation(Rune rune)
    {
        if (rune.IsAscii)
        {
            return rune.Value > ' ' && rune.Value != 0x7F && !Rune.IsLetterOrDigit(rune);
        }

        return Rune.GetUnicodeCategory(rune)
            is UnicodeCategory.ConnectorPunctuation or UnicodeCategory.DashPunctuation or UnicodeCategory.OpenPunctuation
            or UnicodeCategory.ClosePunctuation or UnicodeCategory.InitialQuotePunctuation or UnicodeCategory.FinalQuotePunctuation
            or UnicodeCategory.OtherPunctuation
            ? !ReferenceUnicode.NoPunctuation.Contains(rune)
            : ReferenceUnicode.Punctuation.Contains(rune);
    }

    /// <summary>Nd, Nl or No.</summary>
    public static bool IsNumeric(Rune rune) => Rune.GetUnicodeCategory(rune)
        is UnicodeCategory.DecimalDigitNumber or UnicodeCategory.LetterNumber or UnicodeCategory.OtherNumber;

    /// <summary>
    /// <c>\w</c> of Unicode's regular expressions: alphabetic, mark, decimal digit, connector, and the two joiners.
    /// Alphabetic code points outside L, M and Nl are the circled and squared Latin letters.
    /// </summary>
    public static bool IsWord(Rune rune) => Rune.GetUnicodeCategory(rune) switch
    {
        UnicodeCategory.UppercaseLetter or UnicodeCategory.LowercaseLetter or UnicodeCategory.TitlecaseLetter
            or UnicodeCategory.ModifierLetter or UnicodeCategory.OtherLetter or UnicodeCategory.LetterNumber
            or UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark
            or UnicodeCategory.DecimalDigitNumber or UnicodeCategory.ConnectorPunctuation => true,
        _ => rune.Value is 0x200C or 0x200D or (>= 0x24B6 and <= 0x24E9)
            or (>= 0x1F130 and <= 0x1F149) or (>= 0x1F150 and <= 0x1F169) or (>= 0x1F170 and <= 0x1F189),
    };

    /// <summary>The blocks that BERT surrounds with spaces. The odd start of one block is the reference's.</summary>
    public static bool IsChinese(Rune rune) => rune.Value
        is (>= 0x4E00 and <= 0x9FFF) or (>= 0x3400 and <= 0x4DBF) or (>= 0x20000 and <= 0x2A6DF) or (>= 0x2A700 and <= 0x2B73F)
        or (>= 0x2B740 and <= 0x2B81F) or (>= 0x2B920 and <= 0x2CEAF) or (>= 0xF900 and <= 0xFAFF) or (>= 0x2F800 and <= 0x2FA1F);
}
