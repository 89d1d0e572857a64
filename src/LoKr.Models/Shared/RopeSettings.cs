using LoKr.Core;

namespace LoKr.Models.Shared;

/// <summary>
/// What a configuration says about rotary position embeddings (Su et al., arXiv:2104.09864): <c>rope_parameters</c> of transformers 5, or
/// <c>rope_theta</c> and <c>rope_scaling</c> of older releases.
/// </summary>
internal sealed record RopeSettings
{
    private static readonly string[] _known = ["default", "linear", "dynamic", "yarn", "longrope", "llama3"];

    /// <summary>Reads and checks a configuration.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="headWidth">Width of an attention head.</param>
    /// <param name="positions">The model's <c>max_position_embeddings</c>.</param>
    public RopeSettings(ModelConfig config, int headWidth, int positions)
    {
        // transformers 5 lets an old rope_scaling win where both are there.
        string key = config.Has("rope_scaling") ? "rope_scaling" : "rope_parameters";
        ModelConfig? given = config.GetObject(key);
        Parameters = given ?? new ModelConfig([], $"{config.Source}: {key}");
        Type = Parameters.GetString("rope_type", null) ?? Parameters.GetString("type", null) ?? "default";
        CheckKind(config, key);

        Positions = positions;
        Theta = Positive("rope_theta", Parameters.GetDouble("rope_theta") ?? config.GetDouble("rope_theta", 10000));
        double part = Parameters.GetDouble("partial_rotary_factor") ?? config.GetDouble("partial_rotary_factor", 1);
        Width = (int)(headWidth * part);
        if (Width <= 0 || Width > headWidth || Width % 2 != 0)
        {
            throw Parameters.Invalid("partial_rotary_factor", $"turns {Width} of {headWidth} channels of a head; it takes an even number");
        }

        // Where the key stands beside rope_parameters, it is the one that transformers believes.
        OriginalPositions = config.Has("original_max_position_embeddings")
            ? config.GetSize("original_max_position_embeddings")
            : Parameters.GetSize("original_max_position_embeddings", positions);
        Factor = ReadFactor();
        if (Type == "dynamic" && Width < 4)
        {
            throw Parameters.Invalid("rope_type", $"is dynamic, which needs more than {Width} turned channels");
        }
    }

    /// <summary>The kind: default, linear, dynamic, yarn, longrope or llama3.</summary>
    public string Type { get; }

    /// <summary>Base of the frequencies.</summary>
    public double Theta { get; }

    /// <summary>How many channels of a head are turned; the others pass as they are.</summary>
    public int Width { get; }

    /// <summary>How far a scaled kind stretches the trained length.</summary>
    public double Factor { get; }

    /// <summary>Positions of the model.</summary>
    public int Positions { get; }

    /// <summary>Positions the model was trained with before it was stretched.</summary>
    public int OriginalPositions { get; }

    /// <summary>The other values by key, with errors that name them.</summary>
    public ModelConfig Parameters { get; }

    /// <summary>Longest sequence that the embeddings are made for.</summary>
    public int LongestSequence => Type switch
    {
        // These stretch what max_position_embeddings says; the others are trained at that length.
        "linear" or "dynamic" => (int)Math.Min(int.MaxValue, Positions * Math.Max(Factor, 1)),
        "yarn" => (int)Math.Min(int.MaxValue, Math.Max(Positions, OriginalPositions * Factor)),
        _ => Positions,
    };

    /// <summary>A number that has to be there and be positive.</summary>
    public double Require(string key) =>
        Positive(key, Parameters.GetDouble(key) ?? throw Parameters.Invalid(key, $"is missing, which '{Type}' needs"));

    private void CheckKind(ModelConfig config, string key)
    {
        string? perLayer = Parameters.Json.Where(item => item.Value is System.Text.Json.Nodes.JsonObject).Select(item => item.Key).FirstOrDefault();
        if (perLayer is not null)
        {
            throw Unsupported($"has parameters of its own for '{perLayer}' layers");
        }

        if (!_known.Contains(Type, StringComparer.Ordinal))
        {
            throw Unsupported($"names the kind '{Type}'");
        }

        LoKrException Unsupported(string problem) => new(ErrorIds.RopeUnsupported, LoKrErrorKind.NotSupported,
            $"'{key}' of '{config.Source}' {problem}, which is not built.", $"Known kinds are {string.Join(", ", _known)}.") { Target = Type };
    }

    private double ReadFactor() => Type switch
    {
        "default" => 1,

        // Phi-like files leave the factor to the two lengths.
        "longrope" or "yarn" when !Parameters.Has("factor") => (double)Positions / OriginalPositions,
        _ => Require("factor"),
    };

    private double Positive(string key, double value) =>
        value > 0 && double.IsFinite(value) ? value : throw Parameters.Invalid(key, $"is {value.ToString(System.Globalization.CultureInfo.InvariantCulture)}, not positive");
}
