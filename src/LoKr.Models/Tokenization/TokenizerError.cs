using LoKr.Core;

namespace LoKr.Models.Tokenization;

/// <summary>Builds the errors of this area, so that every one names the file and says what to do.</summary>
internal static class TokenizerError
{
    private const string ResaveAdvice =
        "Results would only be approximate, so nothing was loaded. Use a tokenizer of a supported kind, or tokenize outside and train on ids.";

    public static LoKrException Unsupported(string file, string component, string? advice = null) => new(
        ErrorIds.TokenizerUnsupported,
        LoKrErrorKind.NotSupported,
        $"The tokenizer in '{file}' needs {component}, which is not supported.",
        advice ?? ResaveAdvice)
    {
        Target = file,
    };

    public static LoKrException Invalid(string file, string problem, Exception? cause = null, string? advice = null) => new(
        ErrorIds.TokenizerInvalid,
        LoKrErrorKind.InvalidData,
        $"The tokenizer file '{file}' cannot be used: {problem}.",
        advice ?? "Copy the tokenizer files of the model again.",
        cause)
    {
        Target = file,
    };
}
