using System.Globalization;
using LoKr.Core.Errors;

namespace LoKr.Core.Runs;

/// <summary>How a run is kept on disk.</summary>
public sealed record RunOptions
{
    /// <summary>The run folder.</summary>
    public required string Path { get; init; }

    /// <summary>Time or steps between checkpoints; the default is ten minutes. A run that is stopped writes one too.</summary>
    public RunInterval CheckpointEvery { get; init; } = new(TimeSpan.FromMinutes(10));

    /// <summary>How many checkpoints stay, the last ones; the one of the best evaluation stays as well.</summary>
    public int CheckpointLimit { get; init; } = 3;

    /// <summary>Treatment of a run that is in the folder.</summary>
    public RunResume Resume { get; init; } = RunResume.Auto;

    /// <summary>Whether a run that is in the folder and is not continued is replaced.</summary>
    public bool Force { get; init; }

    /// <summary>Bytes that have to stay free on the disk; checked before every checkpoint. 0 for no check.</summary>
    public long MinimumFreeSpace { get; init; }

    /// <summary>Throws for values that are out of range.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TrainingOptionInvalid"/>.</exception>
    public void Validate()
    {
        if (CheckpointLimit < 1)
        {
            throw Invalid(nameof(CheckpointLimit), CheckpointLimit, "at least 1");
        }

        if (MinimumFreeSpace < 0)
        {
            throw Invalid(nameof(MinimumFreeSpace), MinimumFreeSpace, "0 or more bytes");
        }
    }

    private static LoKrException Invalid(string option, long value, string allowed) => new(
        ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument,
        string.Create(CultureInfo.InvariantCulture, $"{option} is {value}."), $"It must be {allowed}.") { Target = option };
}

/// <summary>Treatments of a run that is in a folder.</summary>
public enum RunResume
{
    /// <summary>An interrupted run goes on, a finished one is returned as it is, and without one a new run begins.</summary>
    Auto,

    /// <summary>A new run begins; a run that is in the folder is an error, or replaced with <see cref="RunOptions.Force"/>.</summary>
    Never,

    /// <summary>A run goes on; without a checkpoint it is an error.</summary>
    Required,
}

/// <summary>An interval in steps or in time.</summary>
public readonly record struct RunInterval
{
    /// <summary>An interval in steps.</summary>
    public RunInterval(int steps) => Steps = steps >= 1 ? steps : throw Invalid(steps.ToString(CultureInfo.InvariantCulture));

    /// <summary>An interval in time.</summary>
    public RunInterval(TimeSpan time) => Time = time > TimeSpan.Zero ? time : throw Invalid(time.ToString());

    /// <summary>Number of steps; null for an interval in time.</summary>
    public int? Steps { get; }

    /// <summary>Time; null for an interval in steps.</summary>
    public TimeSpan? Time { get; }

    /// <summary>Reads <c>200</c> (steps) or a time as <see cref="Durations.Parse"/> does.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TrainingOptionInvalid"/>.</exception>
    public static RunInterval Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return int.TryParse(text.Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out int steps) ? new(steps) : new(Durations.Parse(text));
    }

    /// <inheritdoc/>
    public override string ToString() => Steps is int steps ? FormattableString.Invariant($"{steps} steps") : $"{Time}";

    private static LoKrException Invalid(string text) => new(
        ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument, $"'{text}' is not an interval.", "Give a number of steps, or a time such as 90s, 10m, 2h or 00:30:00.")
    { Target = text };
}

/// <summary>Times as people write them.</summary>
public static class Durations
{
    /// <summary>Reads <c>90s</c>, <c>10m</c>, <c>2h</c>, <c>1.5h</c>, <c>1d</c> or <c>01:30:00</c>.</summary>
    /// <exception cref="LoKrException"><see cref="ErrorIds.TrainingOptionInvalid"/>.</exception>
    public static TimeSpan Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        string trimmed = text.Trim();
        if (trimmed.Contains(':') && TimeSpan.TryParse(trimmed, CultureInfo.InvariantCulture, out TimeSpan time) && time > TimeSpan.Zero)
        {
            return time;
        }

        double seconds = trimmed.Length < 2 ? 0 : trimmed[^1] switch
        {
            's' or 'S' => 1,
            'm' or 'M' => 60,
            'h' or 'H' => 3600,
            'd' or 'D' => 86400,
            _ => 0,
        };
        return seconds > 0 && double.TryParse(trimmed.AsSpan(0, trimmed.Length - 1), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double count)
            && count * seconds is > 0 and < 1e9
                ? TimeSpan.FromSeconds(count * seconds)
                : throw new LoKrException(ErrorIds.TrainingOptionInvalid, LoKrErrorKind.InvalidArgument, $"'{text}' is not a time.", "Write it as 90s, 10m, 2h, 1d or 01:30:00.") { Target = text };
    }
}
