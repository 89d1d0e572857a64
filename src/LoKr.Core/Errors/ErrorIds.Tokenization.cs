namespace LoKr.Core;

public static partial class ErrorIds
{
    /// <summary>The folder holds none of the tokenizer files that are known.</summary>
    public const string TokenizerNotFound = "LoKr.TokenizerNotFound";

    /// <summary>The tokenizer's files are well formed, but ask for something that cannot be done exactly.</summary>
    public const string TokenizerUnsupported = "LoKr.TokenizerUnsupported";

    /// <summary>A tokenizer file is damaged, or two of them contradict each other.</summary>
    public const string TokenizerInvalid = "LoKr.TokenizerInvalid";
}
