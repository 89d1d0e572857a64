using System.Text.Json;
using LoKr.Core.Configuration;
using LoKr.Core.Errors;
using LoKr.Core.IO;
using TorchSharp;
using static TorchSharp.torch;

namespace LoKr.Models.Families;

/// <summary>
/// Frequencies of rotary positions: the angle per position of every pair of channels, float32 [width/2] on the CPU, and the factor on cosine and
/// sine. They are computed with torch's float32 operations in the order of transformers, because a rounding error grows with the position.
/// </summary>
internal static class RopeFrequencies
{
    /// <summary>The frequencies for sequences of a length; only dynamic and longrope depend on it.</summary>
    /// <param name="settings">The kind and its values.</param>
    /// <param name="length">Length of the sequence: last position + 1.</param>
    /// <returns>Frequencies, owned by the caller, and the attention factor.</returns>
    public static (Tensor Frequencies, double AttentionFactor) Compute(RopeSettings settings, long length)
    {
        using DisposeScope scope = NewDisposeScope();
        (Tensor frequencies, double factor) = settings.Type switch
        {
            "default" => (Plain(settings, settings.Theta), 1),
            "linear" => (Plain(settings, settings.Theta) / settings.Factor, 1),
            "dynamic" => (Plain(settings, DynamicTheta(settings, length)), 1),
            "yarn" => Yarn(settings),
            "longrope" => LongRope(settings, length),
            "llama3" => (Llama3(settings), 1),
            _ => throw new InvalidOperationException($"No frequencies for '{settings.Type}'."),
        };
        return (frequencies.MoveToOuterDisposeScope(), factor);
    }

    // The exponents 0, 2/width, 4/width, …
    private static Tensor Exponents(RopeSettings settings) => arange(0, settings.Width, 2, ScalarType.Float32) / settings.Width;

    private static Tensor Powers(RopeSettings settings, double theta) => tensor((float)theta).pow(Exponents(settings));

    private static Tensor Plain(RopeSettings settings, double theta) => Powers(settings, theta).reciprocal();

    // NTK-aware scaling: the base grows with the sequence once it is longer than the model's positions.
    private static double DynamicTheta(RopeSettings settings, long length)
    {
        double stretched = (settings.Factor * Math.Max(length, settings.Positions) / settings.Positions) - (settings.Factor - 1);
        return settings.Theta * Math.Pow(stretched, settings.Width / (settings.Width - 2.0));
    }

    // Peng et al., arXiv:2309.00071: fast channels keep their frequency, slow ones are interpolated, a ramp lies between.
    private static (Tensor Frequencies, double AttentionFactor) Yarn(RopeSettings settings)
    {
        JsonFields given = settings.Parameters;
        double low = Channel(settings, Or("beta_fast", 32));
        double high = Channel(settings, Or("beta_slow", 1));
        if (given.GetBool("truncate", true))
        {
            (low, high) = (Math.Floor(low), Math.Ceiling(high));
        }

        (low, high) = (Math.Max(low, 0), Math.Min(high, settings.Width - 1));
        high += low == high ? 0.001 : 0;

        Tensor powers = Powers(settings, settings.Theta);
        Tensor kept = 1 - ((arange(settings.Width / 2, ScalarType.Float32) - low) / (high - low)).clamp(0, 1);
        Tensor interpolated = (powers * settings.Factor).reciprocal();
        Tensor frequencies = (interpolated * (1 - kept)) + (powers.reciprocal() * kept);

        double scale = Or("mscale", 0);
        double scaleAll = Or("mscale_all_dim", 0);
        double factor = given.FindDouble("attention_factor")
            ?? (scale != 0 && scaleAll != 0 ? Magnitude(settings.Factor, scale) / Magnitude(settings.Factor, scaleAll) : Magnitude(settings.Factor, 1));
        return (frequencies, factor);

        // As in Python, 0 counts as not given.
        double Or(string key, double defaultValue) => given.GetDouble(key, defaultValue) is var value && value != 0 ? value : defaultValue;
    }

    // The channel that makes this many rotations over the trained length.
    private static double Channel(RopeSettings settings, double rotations) =>
        settings.Width * Math.Log(settings.OriginalPositions / (rotations * 2 * Math.PI)) / (2 * Math.Log(settings.Theta));

    private static double Magnitude(double factor, double scale) => factor <= 1 ? 1 : (0.1 * scale * Math.Log(factor)) + 1;

    // Ding et al., arXiv:2402.13753: a factor per channel, one list up to the trained length and one beyond.
    private static (Tensor Frequencies, double AttentionFactor) LongRope(RopeSettings settings, long length)
    {
        float[] stretches = Factors(settings, IsLong(settings, length) ? "long_factor" : "short_factor");
        double factor = settings.Parameters.FindDouble("attention_factor")
            ?? (settings.Factor <= 1 ? 1 : Math.Sqrt(1 + (Math.Log(settings.Factor) / Math.Log(settings.OriginalPositions))));
        return ((tensor(stretches) * Powers(settings, settings.Theta)).reciprocal(), factor);
    }

    /// <summary>Whether a sequence is longer than longrope was trained with.</summary>
    public static bool IsLong(RopeSettings settings, long length) => length > settings.OriginalPositions;

    private static float[] Factors(RopeSettings settings, string key)
    {
        float[] values = [.. settings.Parameters.GetDoubles(key).Select(value => (float)value)];
        return values.Length == settings.Width / 2
            ? values
            : throw settings.Parameters.Invalid(key, $"has {values.Length} values; {settings.Width / 2} pairs of channels need one each");
    }

    // Llama 3.1: slow channels are stretched, fast ones are not, those between are blended by their wave length.
    private static Tensor Llama3(RopeSettings settings)
    {
        double lowFactor = settings.Require("low_freq_factor");
        double highFactor = settings.Require("high_freq_factor");
        if (highFactor <= lowFactor)
        {
            throw settings.Parameters.Invalid("high_freq_factor", $"is not above low_freq_factor");
        }

        double positions = settings.OriginalPositions;
        Tensor plain = Plain(settings, settings.Theta);
        Tensor waves = plain.reciprocal() * (2 * Math.PI);
        Tensor slow = waves.gt(positions / lowFactor);
        Tensor stretched = where(slow, plain / settings.Factor, plain);
        Tensor blend = ((waves.reciprocal() * positions) - lowFactor) / (highFactor - lowFactor);
        Tensor blended = ((1 - blend) * stretched / settings.Factor) + (blend * stretched);
        Tensor between = waves.lt(positions / highFactor).logical_not().logical_and(slow.logical_not());
        return where(between, blended, stretched);
    }
}

/// <summary>Where a family, or one kind of its layers, has the parameters of its rotary positions in a configuration.</summary>
internal sealed record RopeRules
{
    /// <summary>Base of the frequencies where the configuration has none.</summary>
    public double DefaultTheta { get; init; } = 10000;

    /// <summary>Key of the base before transformers 5.</summary>
    public string ThetaKey { get; init; } = "rope_theta";

    /// <summary>Whether <c>rope_scaling</c> of older releases applies.</summary>
    public bool IsScaled { get; init; } = true;

    /// <summary>The kind of layer whose member of <c>rope_parameters</c> counts; null where all layers have the same parameters.</summary>
    public string? LayerType { get; init; }

    /// <summary>Names of kinds that mean longrope in this family.</summary>
    public IReadOnlyList<string> LongRopeNames { get; init; } = [];
}

/// <summary>
/// Rotary position embeddings (Su et al., arXiv:2104.09864) as a configuration describes them: <c>rope_parameters</c> of transformers 5, or
/// <c>rope_theta</c> and <c>rope_scaling</c> of older releases.
/// </summary>
internal sealed record RopeSettings
{
    private static readonly string[] s_known = ["default", "linear", "dynamic", "yarn", "longrope", "llama3"];

    /// <summary>Reads and checks a configuration.</summary>
    /// <param name="config">The configuration.</param>
    /// <param name="headWidth">Width of an attention head.</param>
    /// <param name="positions">The model's <c>max_position_embeddings</c>.</param>
    /// <param name="rules">Keys and defaults of the family; null for the usual ones.</param>
    public RopeSettings(ModelConfig config, int headWidth, int positions, RopeRules? rules = null)
    {
        rules ??= new RopeRules();

        // In transformers 5 an old rope_scaling overrides rope_parameters.
        string key = rules.IsScaled && config.Has("rope_scaling") ? "rope_scaling" : "rope_parameters";
        JsonFields own = rules.LayerType is null ? config.GetObjectOrEmpty("rope_parameters") : OfLayers(config, rules.LayerType);
        Parameters = key == "rope_scaling" ? config.GetObjectOrEmpty(key) : own;
        string kind = Parameters.FindString("rope_type") ?? Parameters.FindString("type") ?? "default";
        Type = rules.LongRopeNames.Contains(kind, StringComparer.Ordinal) ? "longrope" : kind;
        CheckKind(config, key);

        Positions = positions;
        double? ofLayers = rules.LayerType is null ? null : own.FindDouble("rope_theta");
        Theta = Positive("rope_theta", Parameters.FindDouble("rope_theta") ?? ofLayers ?? config.GetDouble(rules.ThetaKey, rules.DefaultTheta));
        PartialFactor = Parameters.FindDouble("partial_rotary_factor") ?? config.GetDouble("partial_rotary_factor", 1);
        Width = (int)(headWidth * PartialFactor);
        if (Width <= 0 || Width > headWidth || Width % 2 != 0)
        {
            throw Parameters.Invalid("partial_rotary_factor", $"rotates {Width} of {headWidth} channels of a head; an even number is required");
        }

        // Beside rope_parameters, this key overrides theirs, as in transformers.
        OriginalPositions = config.Has("original_max_position_embeddings")
            ? config.GetSize("original_max_position_embeddings")
            : Parameters.GetSize("original_max_position_embeddings", positions);
        Factor = ReadFactor();
        if (Type == "dynamic" && Width < 4)
        {
            throw Parameters.Invalid("rope_type", $"is dynamic, which needs more than {Width} rotated channels");
        }
    }

    /// <summary>The kind: default, linear, dynamic, yarn, longrope or llama3.</summary>
    public string Type { get; }

    /// <summary>Base of the frequencies.</summary>
    public double Theta { get; }

    /// <summary>Number of channels of a head that are rotated; the others pass unchanged.</summary>
    public int Width { get; }

    /// <summary>Factor by which a scaled kind stretches the trained length.</summary>
    public double Factor { get; }

    /// <summary>Positions of the model.</summary>
    public int Positions { get; }

    /// <summary>Positions the model was trained with before it was stretched.</summary>
    public int OriginalPositions { get; }

    /// <summary>The other values by key, with errors that name them.</summary>
    public JsonFields Parameters { get; }

    /// <summary>Longest sequence that the embeddings are meant for.</summary>
    public int LongestSequence => Type switch
    {
        // These stretch max_position_embeddings; the other kinds are trained at that length.
        "linear" or "dynamic" => (int)Math.Min(int.MaxValue, Positions * Math.Max(Factor, 1)),
        "yarn" => (int)Math.Min(int.MaxValue, Math.Max(Positions, OriginalPositions * Factor)),
        _ => Positions,
    };

    /// <summary>Share of a head that is rotated.</summary>
    public double PartialFactor { get; }

    /// <summary>Whether only a part of each head is rotated.</summary>
    public bool IsPartial => PartialFactor != 1;

    /// <summary>A required positive number.</summary>
    public double Require(string key) =>
        Positive(key, Parameters.FindDouble(key) ?? throw Parameters.Invalid(key, $"is missing, which '{Type}' needs"));

    // Parameters of one kind of layer; those of all layers at once would be ignored by transformers.
    private static JsonFields OfLayers(ModelConfig config, string layerType)
    {
        JsonFields all = config.GetObjectOrEmpty("rope_parameters");
        return all.Count == 0 || all.Members.Any(static item => item.Value.ValueKind == JsonValueKind.Object)
            ? all.GetObjectOrEmpty(layerType)
            : throw config.Unsupported("rope_parameters", $"has one set of parameters for all layers; this family has one for '{LayerTypes.Full}' and one for '{LayerTypes.Sliding}' layers");
    }

    private void CheckKind(ModelConfig config, string key)
    {
        string? perLayer = Parameters.Members.Where(item => item.Value.ValueKind == JsonValueKind.Object).Select(item => item.Key).FirstOrDefault();
        if (perLayer is not null)
        {
            throw Unsupported($"has parameters of its own for '{perLayer}' layers");
        }

        if (!s_known.Contains(Type, StringComparer.Ordinal))
        {
            throw Unsupported($"names the kind '{Type}'");
        }

        LoKrException Unsupported(string problem) => new(ErrorIds.RopeUnsupported, LoKrErrorKind.NotSupported,
            $"'{key}' of '{config.Source}' {problem}, which is not supported.", $"Known kinds are {string.Join(", ", s_known)}.") { Target = Type };
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

/// <summary>
/// Cosine and sine tables of rotary position embeddings, computed in float32 and cached for one device, type and kind of length at a time,
/// no longer than twice the longest sequence seen. Where rotations depend on the length of the sequence (dynamic, longrope), keys in a cache
/// stay as they were rotated, as in transformers. The model that creates it disposes it.
/// </summary>
internal sealed class RotaryEmbedding(RopeSettings settings) : IDisposable
{
    private const long ShortestTable = 256;

    private (DeviceType Device, int Index, ScalarType Type, bool Long) _key;
    private Tensor? _cosine;
    private Tensor? _sine;

    /// <summary>The rotations of consecutive positions; views of the table, in the caller's dispose scope.</summary>
    /// <param name="start">First position.</param>
    /// <param name="length">Number of positions.</param>
    /// <param name="device">Device of the model.</param>
    /// <param name="dtype">Type of the model.</param>
    public Rotation Get(long start, long length, Device device, ScalarType dtype)
    {
        long end = start + length;
        if (settings.Type == "dynamic" && end > settings.Positions)
        {
            // Every length has frequencies of its own here: nothing is worth caching.
            (Tensor cosine, Tensor sine) = Compute(start, end, end, device, dtype);
            return new Rotation(cosine, sine);
        }

        bool isLong = settings.Type == "longrope" && RopeFrequencies.IsLong(settings, end);
        (DeviceType, int, ScalarType, bool) key = (device.type, device.index, dtype, isLong);
        if (_cosine is null || _key != key || _cosine.shape[0] < end)
        {
            Grow(end, isLong, device, dtype);
            _key = key;
        }

        return new Rotation(_cosine!.narrow(0, start, length), _sine!.narrow(0, start, length));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _cosine?.Dispose();
        _sine?.Dispose();
        _cosine = _sine = null;
    }

    private void Grow(long end, bool isLong, Device device, ScalarType dtype)
    {
        long rows = Math.Max(ShortestTable, (long)System.Numerics.BitOperations.RoundUpToPowerOf2((ulong)end));
        rows = Math.Min(rows, Math.Max(end, settings.LongestSequence));
        (Tensor cosine, Tensor sine) = Compute(0, rows, isLong ? end : 0, device, dtype);
        Dispose();
        _cosine = cosine.DetachFromDisposeScope();
        _sine = sine.DetachFromDisposeScope();
    }

    /// <summary>Tables [positions, width]; the sine's first half is negated, see <see cref="Rotation.Apply"/>.</summary>
    private (Tensor Cosine, Tensor Sine) Compute(long start, long end, long sequenceLength, Device device, ScalarType dtype)
    {
        // A tensor created in inference mode cannot be used in training later.
        using IDisposable normal = inference_mode(false);
        using IDisposable noGrad = no_grad();
        using DisposeScope scope = NewDisposeScope();
        (Tensor frequencies, double factor) = RopeFrequencies.Compute(settings, sequenceLength);
        Tensor angles = arange(start, end, ScalarType.Float32, device).unsqueeze(1) * frequencies.to(device).unsqueeze(0);
        Tensor cosine = angles.cos() * factor;
        Tensor sine = angles.sin() * factor;
        return (
            cat([cosine, cosine], 1).to(dtype).MoveToOuterDisposeScope(),
            cat([-sine, sine], 1).to(dtype).MoveToOuterDisposeScope());
    }
}

/// <summary>The rotations of the layers of a model: one table for each set of parameters. The model that creates it disposes it.</summary>
/// <param name="ropes">The parameters by layer; null for a layer that does not rotate. Empty where positions are embedded.</param>
internal sealed class LayerRotations(IReadOnlyList<RopeSettings?> ropes) : IDisposable
{
    private readonly Dictionary<RopeSettings, RotaryEmbedding> _tables =
        ropes.OfType<RopeSettings>().Distinct().ToDictionary(static rope => rope, static rope => new RotaryEmbedding(rope));

    /// <summary>The rotations of consecutive positions by layer; views of the tables, in the caller's dispose scope.</summary>
    /// <param name="start">First position.</param>
    /// <param name="length">Number of positions.</param>
    /// <param name="device">Device of the model.</param>
    /// <param name="dtype">Type of the model.</param>
    public IReadOnlyList<Rotation?> Get(long start, long length, Device device, ScalarType dtype) =>
        OfLayers(table => table.Get(start, length, device, dtype));

    /// <summary>The rotations of given positions by layer; in the caller's dispose scope.</summary>
    /// <param name="positionIds">Positions, int64 [batch, length]. What depends on the length of a sequence follows the largest of them.</param>
    /// <param name="device">Device of the model.</param>
    /// <param name="dtype">Type of the model.</param>
    public IReadOnlyList<Rotation?> Get(Tensor positionIds, Device device, ScalarType dtype)
    {
        if (_tables.Count == 0)
        {
            return [];
        }

        long longest;
        using (NewDisposeScope())
        {
            longest = positionIds.max().ToInt64() + 1;
        }

        return OfLayers(table => table.Get(0, longest, device, dtype).At(positionIds));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (RotaryEmbedding table in _tables.Values)
        {
            table.Dispose();
        }
    }

    private Rotation?[] OfLayers(Func<RotaryEmbedding, Rotation> get)
    {
        Dictionary<RopeSettings, Rotation> rotations = _tables.ToDictionary(static table => table.Key, table => get(table.Value));
        return [.. ropes.Select(rope => rope is null ? (Rotation?)null : rotations[rope])];
    }
}

/// <summary>The rotations of the positions of one forward pass.</summary>
/// <param name="Cosine">[length, width], or [batch, length, width] where rows have positions of their own.</param>
/// <param name="Sine">The same, the first half negated.</param>
internal readonly record struct Rotation(Tensor Cosine, Tensor Sine)
{
    /// <summary>
    /// Rotates channel i with channel i + width/2 of every head: x·cos + (−x₂, x₁)·sin. The signs are in the sine, so that swapping the halves
    /// is one roll of the last dimension.
    /// </summary>
    /// <param name="x">[batch, length, heads, head width].</param>
    public Tensor Apply(Tensor x)
    {
        using DisposeScope scope = NewDisposeScope();
        long width = Cosine.shape[^1];
        long all = x.shape[^1];
        Tensor part = width == all ? x : x.narrow(-1, 0, width);
        Tensor turned = (part * Cosine.unsqueeze(-2)).add_(part.roll(width / 2, -1).mul_(Sine.unsqueeze(-2)));
        return (width == all ? turned : cat([turned, x.narrow(-1, width, all - width)], -1)).MoveToOuterDisposeScope();
    }

    /// <summary>The rotations of some of the positions, int64 [batch, length]; in the caller's dispose scope.</summary>
    public Rotation At(Tensor positionIds)
    {
        using DisposeScope scope = NewDisposeScope();
        Tensor flat = positionIds.flatten();
        long[] shape = [.. positionIds.shape, Cosine.shape[^1]];
        return new(Cosine.index_select(0, flat).view(shape).MoveToOuterDisposeScope(), Sine.index_select(0, flat).view(shape).MoveToOuterDisposeScope());
    }
}
