namespace LoKr.Core;

public static partial class ErrorIds
{
    /// <summary>A model's rotary position embedding is of a kind that is not built, or of one per kind of layer.</summary>
    public const string RopeUnsupported = "LoKr.RopeUnsupported";

    /// <summary>A prompt leaves no room for a new token within the model's longest sequence.</summary>
    public const string PromptTooLong = "LoKr.PromptTooLong";

    /// <summary>A prompt has no token to continue from.</summary>
    public const string PromptEmpty = "LoKr.PromptEmpty";

    /// <summary>A prompt holds an id that is not in the model's vocabulary.</summary>
    public const string PromptInvalid = "LoKr.PromptInvalid";

    /// <summary>An option of text generation is out of its range.</summary>
    public const string GenerationOptionInvalid = "LoKr.GenerationOptionInvalid";

    /// <summary>The scores of the next token are NaN or infinite.</summary>
    public const string LogitsNotFinite = "LoKr.LogitsNotFinite";
}
