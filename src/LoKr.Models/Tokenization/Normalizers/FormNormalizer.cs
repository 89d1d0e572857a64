using System.Text;
using LoKr.Core;

namespace LoKr.Models.Tokenization.Normalizers;

/// <summary>NFC, NFD, NFKC or NFKD.</summary>
internal sealed class FormNormalizer : TextNormalizer
{
    private readonly NormalizationForm _form;

    /// <exception cref="LoKrException">The process has no Unicode data: it runs in invariant globalization mode.</exception>
    public FormNormalizer(NormalizationForm form)
    {
        EnsureAvailable();
        _form = form;
    }

    /// <inheritdoc/>
    public override string Normalize(string original) => Ascii.IsValid(original) ? original : original.Normalize(_form);

    /// <summary>In invariant globalization mode .NET returns every text unchanged, which would give wrong tokens silently.</summary>
    public static void EnsureAvailable()
    {
        if ("e\u0301".Normalize(NormalizationForm.FormC) != "\u00E9")
        {
            throw new LoKrException(
                ErrorIds.TokenizerUnsupported,
                LoKrErrorKind.Unavailable,
                "The tokenizer normalizes Unicode, but this process runs without Unicode data (invariant globalization mode).",
                "Install ICU (libicu) and start again without DOTNET_SYSTEM_GLOBALIZATION_INVARIANT.");
        }
    }
}
