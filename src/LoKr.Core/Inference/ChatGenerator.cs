using System.Diagnostics;
using LoKr.Core.Chat;
using LoKr.Core.Data;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using LoKr.Core.Model;
using LoKr.Core.Nn;
using LoKr.Core.Training;
using static TorchSharp.torch;

namespace LoKr.Core.Inference;

/// <summary>Answers conversations with a causal language model that has a chat template.</summary>
public static class ChatGenerator
{
    // An answer of which the template shows where it ends; plain letters, so that no template changes it.
    private const string Probe = "answer";

    /// <summary>Answers a conversation in evaluation mode and without gradients; afterwards every module returns to the mode it was in.</summary>
    /// <param name="model">A causal language model with a tokenizer and a chat template.</param>
    /// <param name="messages">The conversation, at least one message.</param>
    /// <param name="options">Length, sampling and seed; null for those of the model.</param>
    /// <param name="onText">Gets the answer as it comes, in pieces of whole characters; null for none.</param>
    /// <param name="cancellationToken">Checked before every token.</param>
    /// <exception cref="LoKrException">
    /// <see cref="ErrorIds.TaskUnknown"/>, <see cref="ErrorIds.TokenizerMissing"/>, <see cref="ErrorIds.ChatTemplateMissing"/>, the errors of the
    /// template, such as <see cref="ErrorIds.ChatTemplateFailed"/> for a conversation that it refuses, and those of the model.
    /// </exception>
    /// <exception cref="OperationCanceledException">The token was canceled.</exception>
    public static LoKrConversation Answer(
        LoKrModel model, IReadOnlyList<LoKrMessage> messages, ChatOptions? options = null, Action<string>? onText = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(messages);
        options ??= new();
        ICausalLanguageModel language = TextGenerator.LanguageModel(model);
        using EvaluationMode mode = new([model]);
        ITextTokenizer tokenizer = TextEncoding.RequireTokenizer(model);
        ChatTemplate template = ChatTemplates.Require(model);
        long started = Stopwatch.GetTimestamp();
        DateTime now = DateTime.Now;
        IReadOnlyDictionary<string, object?>[] conversation = [.. messages.Select(static message => message.ToMap())];
        IReadOnlyList<int> prompt = tokenizer.Encode(template.Render(conversation, addGenerationPrompt: true, options.Variables, now).Text, addSpecialTokens: false);
        GenerationOptions generation = options.Resolve(language.ReadGenerationSettings(), prompt.Count) with
        {
            StopIds = [.. tokenizer.EosId is int eos ? (int[])[eos] : [], .. EndOfTurn(template, tokenizer, conversation, options.Variables, now)],
        };

        using var noGrad = no_grad();
        using var scope = NewDisposeScope();
        TextPieces? pieces = onText is null ? null : new(tokenizer.OpenDecodeStream(), onText);
        IReadOnlyList<int> generated = language.Generate(prompt, generation with { OnToken = pieces is null ? null : pieces.Add }, cancellationToken);
        pieces?.Complete();
        string answer = tokenizer.Decode(generated);
        return new()
        {
            Messages = [.. messages, new() { Role = "assistant", Content = answer }],
            Answer = answer,
            IsComplete = generated.Count < Math.Min(generation.MaxNewTokens, language.MaxSequenceLength - prompt.Count),
            PromptTokenCount = prompt.Count,
            TokenCount = generated.Count,
            Elapsed = Stopwatch.GetElapsedTime(started),
        };
    }

    // The special token that the template writes behind an answer, which need not be the model's end of text.
    private static IEnumerable<int> EndOfTurn(
        ChatTemplate template, ITextTokenizer tokenizer, IReadOnlyDictionary<string, object?>[] conversation, IReadOnlyDictionary<string, object?>? variables, DateTime now)
    {
        string whole = template.Render([.. conversation, Conversation.Message("assistant", Probe)], addGenerationPrompt: false, variables, now).Text;
        int at = whole.LastIndexOf(Probe, StringComparison.Ordinal);
        return at < 0 ? [] : tokenizer.Encode(whole[(at + Probe.Length)..].TrimStart(), addSpecialTokens: false).Take(1)
            .Where(id => tokenizer.Decode([id]).Length == 0 && tokenizer.Decode([id], skipSpecialTokens: false).Length > 0);
    }
}

/// <summary>How a conversation is answered. What is null is as generation_config.json of the model says.</summary>
public sealed record ChatOptions
{
    /// <summary>Most tokens of an answer where neither these options nor the model say.</summary>
    public const int DefaultMaxNewTokens = 256;

    // What transformers samples from where do_sample is on and top_k is not given.
    private const int DefaultTopK = 50;

    /// <summary>Most tokens to generate.</summary>
    public int? MaxNewTokens { get; init; }

    /// <summary>Divides the logits; 0 takes the most likely token (greedy).</summary>
    public double? Temperature { get; init; }

    /// <summary>Samples among the most likely tokens only; 0 for no limit.</summary>
    public int? TopK { get; init; }

    /// <summary>Samples among the most likely tokens whose probabilities reach this sum; 1 for no limit.</summary>
    public double? TopP { get; init; }

    /// <summary>Makes tokens that occurred already less likely; 1 for no penalty.</summary>
    public double? RepetitionPenalty { get; init; }

    /// <summary>Seed of the sampling; null takes a fresh one.</summary>
    public long? Seed { get; init; }

    /// <summary>Further variables of the chat template by name, such as <c>enable_thinking</c>.</summary>
    public IReadOnlyDictionary<string, object?>? Variables { get; init; }

    /// <summary>Whether tokens are drawn, not the most likely ones taken.</summary>
    /// <param name="settings">The settings of the model.</param>
    public bool Samples(GenerationSettings settings) => Resolve(settings, promptLength: 0).Temperature > 0;

    /// <summary>The options with the settings of a model where they are null, as transformers reads those.</summary>
    /// <param name="settings">The settings of the model.</param>
    /// <param name="promptLength">Tokens of the prompt, which <c>max_length</c> counts too.</param>
    internal GenerationOptions Resolve(GenerationSettings settings, int promptLength)
    {
        ArgumentNullException.ThrowIfNull(settings);
        bool samples = settings.DoSample == true;
        return new()
        {
            MaxNewTokens = MaxNewTokens ?? settings.MaxNewTokens ?? (settings.MaxLength > promptLength ? settings.MaxLength.Value - promptLength : DefaultMaxNewTokens),
            Temperature = Temperature ?? (samples ? settings.Temperature ?? 1 : 0),
            TopK = TopK ?? settings.TopK ?? (samples ? DefaultTopK : 0),
            TopP = TopP ?? settings.TopP ?? 1,
            RepetitionPenalty = RepetitionPenalty ?? settings.RepetitionPenalty ?? 1,
            Seed = Seed,
        };
    }
}

/// <summary>One message of a conversation. Flat and serializable.</summary>
public sealed record LoKrMessage
{
    /// <summary>Who says it: system, user, assistant or tool.</summary>
    public required string Role { get; init; }

    /// <summary>The text of the message.</summary>
    public required string Content { get; init; }

    /// <summary>Further members of the message for the chat template, by name.</summary>
    public IReadOnlyDictionary<string, object?> Others { get; init => field = ValueList.Of(value); } = ValueList.Of(new Dictionary<string, object?>());

    /// <summary>The message as a chat template takes it.</summary>
    internal IReadOnlyDictionary<string, object?> ToMap() => new Dictionary<string, object?>(Others, StringComparer.Ordinal) { ["role"] = Role, ["content"] = Content };

    /// <inheritdoc/>
    public override string ToString() => $"{Role}: {Content}";
}

/// <summary>A conversation with its last answer. Flat and serializable.</summary>
public sealed record LoKrConversation
{
    /// <summary>All messages, the answer included.</summary>
    public required IReadOnlyList<LoKrMessage> Messages { get; init => field = ValueList.Of(value); }

    /// <summary>The answer, without the token that ends it.</summary>
    public required string Answer { get; init; }

    /// <summary>Whether the model ended the answer; otherwise it has as many tokens as were allowed.</summary>
    public required bool IsComplete { get; init; }

    /// <summary>Tokens of the conversation before the answer.</summary>
    public required int PromptTokenCount { get; init; }

    /// <summary>Tokens of the answer.</summary>
    public required int TokenCount { get; init; }

    /// <summary>Duration of the answer.</summary>
    public required TimeSpan Elapsed { get; init; }

    /// <inheritdoc/>
    public override string ToString() => Answer;
}
