using LoKr.Core.Chat;
using LoKr.Core.Errors;
using LoKr.Core.Model;

namespace LoKr.Core.Data;

/// <summary>The chat templates of models.</summary>
internal static class ChatTemplates
{
    /// <summary>The chat template of a model.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TokenizerMissing"/>, <see cref="ErrorIds.ChatTemplateMissing"/>, or an error of the template.</exception>
    public static ChatTemplate Require(LoKrModel model) => TextEncoding.RequireTokenizer(model).FindChatTemplate() ?? throw new LoKrException(
        ErrorIds.ChatTemplateMissing,
        LoKrErrorKind.InvalidOperation,
        $"The model {model.Name} has no chat template, so it is not known how it writes conversations.",
        "Put the chat_template.jinja of the model into its folder and load it again, or give texts.");
}
