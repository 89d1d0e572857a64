using System.Collections;
using System.Globalization;
using System.Management.Automation;
using System.Management.Automation.Host;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Formatting;

/// <summary>Cells of the views in LoKr.Format.ps1xml that need more than a property. The properties themselves stay plain numbers.</summary>
public static class ViewText
{
    private const string Reset = "\u001b[0m";

    /// <summary>A shape: <c>384×1536</c>.</summary>
    public static string Shape(IEnumerable? dimensions) => dimensions is null ? "" : string.Join('×', dimensions.Cast<object>().Select(Invariant));

    /// <summary>Names or other short values in one line.</summary>
    public static string List(IEnumerable? values) => values switch
    {
        null => "",
        string text => text,
        _ => string.Join(", ", values.Cast<object>().Select(Invariant)),
    };

    /// <summary>Adapters of a model and their state: <c>a, b (merged), c (off)</c>.</summary>
    public static string Adapters(IEnumerable? names, IEnumerable? active, IEnumerable? merged)
    {
        HashSet<string> on = Names(active);
        HashSet<string> inWeights = Names(merged);
        return string.Join(", ", Values(names).Select(name => inWeights.Contains(name) ? $"{name} (merged)" : on.Contains(name) ? name : $"{name} (off)"));
    }

    /// <summary>Patterns and their values in their order: <c>query = 4, value = 8</c>.</summary>
    public static string Pairs(IEnumerable? pairs) => string.Join(", ", Entries(pairs).Select(entry => $"{entry.Key} = {(entry.Value.Unwrap() is IEnumerable several and not string ? List(several) : Invariant(entry.Value))}"));

    /// <summary>Probabilities, the highest first: <c>network 0.8123, billing 0.1021</c>.</summary>
    public static string Scores(IEnumerable? scores) => string.Join(", ", Entries(scores)
        .Select(entry => (entry.Key, Score: Convert.ToDouble(entry.Value, CultureInfo.InvariantCulture)))
        .OrderByDescending(entry => entry.Score)
        .Select(entry => $"{entry.Key} {Number(entry.Score, 4)}"));

    /// <summary>Element types as PyTorch spells them: <c>bfloat16</c>. After a job an enumeration is a number, whose wrapper still knows the name.</summary>
    public static string Lower(PSObject? value) => value?.ToString().ToLowerInvariant() ?? "";

    /// <summary>A day: <c>2026-03-05</c>.</summary>
    public static string Day(object? value) => value is DateTime day ? day.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture) : "";

    /// <summary>A count with thousands separators.</summary>
    public static string Count(object? value) => value is null ? "" : Convert.ToInt64(value, CultureInfo.InvariantCulture).ToString("N0", CultureInfo.CurrentCulture);

    /// <summary>A number with a fixed number of decimals; empty where there is none.</summary>
    public static string Number(object? value, int decimals) =>
        value is null ? "" : Convert.ToDouble(value, CultureInfo.InvariantCulture).ToString("F" + decimals.ToString(CultureInfo.InvariantCulture), CultureInfo.CurrentCulture);

    /// <summary>The first numbers of a vector, which has hundreds: <c>0.0421, -0.0733, 0.0102, …</c>.</summary>
    public static string Vector(IEnumerable? values)
    {
        const int shown = 3;
        object[] first = [.. (values ?? Array.Empty<object>()).Cast<object>().Take(shown + 1)];
        return string.Join(", ", first.Take(shown).Select(static value => Number(value, 4))) + (first.Length > shown ? ", …" : "");
    }

    /// <summary>A number that may be very small, such as a learning rate.</summary>
    public static string Short(object? value) => value is null ? "" : Convert.ToDouble(value, CultureInfo.InvariantCulture).ToString("G4", CultureInfo.CurrentCulture);

    /// <summary>A name that leaves room for the other columns in the window of the host: of a long one the end is shown, which tells modules apart.</summary>
    /// <param name="name">The name.</param>
    /// <param name="host">The host; a window of 80 columns is assumed for one without.</param>
    /// <param name="others">Columns that the rest of the table takes.</param>
    public static string Fit(string? name, PSHost? host, int others)
    {
        int most = Math.Max(24, WindowWidth(host) - others);
        return name is null ? "" : name.Length <= most ? name : string.Concat("…", name.AsSpan(name.Length - most + 1));
    }

    /// <summary>A value in a color of <c>$PSStyle</c>, which the formatter leaves out where the output is redirected, and with NO_COLOR. Nothing and 0 have none.</summary>
    /// <param name="value">The value.</param>
    /// <param name="color">The color as an escape sequence.</param>
    public static string Colored(object? value, string? color) =>
        Text(value) is { Length: > 0 } text && text != "0" && !string.IsNullOrEmpty(color) ? $"{color}{text}{Reset}" : Text(value);

    /// <summary>Yes in a color, and no without.</summary>
    public static string Yes(object? value, string? good) => value is true ? Colored(value, good) : Text(value);

    /// <summary>Yes in one color, and no in another.</summary>
    public static string Pass(object? value, string? good, string? bad) => Colored(value, value is true ? good : bad);

    /// <summary>A severity in its color.</summary>
    public static string Severity(PSObject? value, string? error, string? warning) => value?.ToString() switch
    {
        "Error" => Colored(value, error),
        "Warning" => Colored(value, warning),
        var other => other ?? "",
    };

    /// <summary>A number before and after: <c>0.5120 → 0.4871</c>, in the color of better or worse; empty where there is none.</summary>
    /// <param name="before">The number before.</param>
    /// <param name="after">The number after.</param>
    /// <param name="decimals">Decimals.</param>
    /// <param name="higherIsBetter">Whether a higher number is better.</param>
    /// <param name="better">Color of a better number.</param>
    /// <param name="worse">Color of a worse number.</param>
    public static string Change(object? before, object? after, int decimals, bool higherIsBetter, string? better, string? worse)
    {
        if (before is null || after is null)
        {
            return "";
        }

        string text = $"{Number(before, decimals)} → {Number(after, decimals)}";
        int sign = Convert.ToDouble(after, CultureInfo.InvariantCulture).CompareTo(Convert.ToDouble(before, CultureInfo.InvariantCulture));
        return Number(before, decimals) == Number(after, decimals) ? text : Colored(text, sign > 0 == higherIsBetter ? better : worse);
    }

    /// <summary>A share as percent: <c>0.0123</c> is <c>1.23 %</c>; empty where there is none.</summary>
    public static string Percent(object? value) => value is null ? "" : $"{(Convert.ToDouble(value, CultureInfo.InvariantCulture) * 100).ToString("G3", CultureInfo.CurrentCulture)} %";

    /// <summary>A number of bytes: <c>1.84 GB</c>; empty for none.</summary>
    public static string Size(object? value) => value is null ? "" : Convert.ToInt64(value, CultureInfo.InvariantCulture) switch
    {
        <= 0 => "",
        < 1_000 and long bytes => string.Create(CultureInfo.CurrentCulture, $"{bytes} B"),
        < 1_000_000 and long bytes => $"{Number(bytes / 1e3, 1)} KB",
        < 1_000_000_000 and long bytes => $"{Number(bytes / 1e6, 1)} MB",
        long bytes => $"{Number(bytes / 1e9, 2)} GB",
    };

    /// <summary>A number of operations with a suffix: <c>12.3 M</c>; empty for none.</summary>
    public static string Operations(object? value) => value is null ? "" : Convert.ToDouble(value, CultureInfo.InvariantCulture) switch
    {
        <= 0 => "",
        < 1e3 and double count => Number(count, 0),
        < 1e6 and double count => $"{Number(count / 1e3, 1)} K",
        < 1e9 and double count => $"{Number(count / 1e6, 1)} M",
        < 1e12 and double count => $"{Number(count / 1e9, 1)} G",
        double count => $"{Number(count / 1e12, 1)} T",
    };

    /// <summary>Steps that are made, of all: <c>420/2000</c>; large numbers get suffixes, <c>1042/1M</c>, as a column cuts the digits in front. Empty without a total.</summary>
    public static string Steps(object? step, object? total)
    {
        const int Width = 11;
        if (step is null || total is null)
        {
            return "";
        }

        string[] texts = [$"{Invariant(step)}/{Invariant(total)}", $"{Invariant(step)}/{Shortened(total)}", $"{Shortened(step)}/{Shortened(total)}"];
        return Array.Find(texts, static text => text.Length <= Width) ?? texts[^1];
    }

    /// <summary>Seconds, minutes and hours of a time span: <c>0:01:05.3</c>.</summary>
    public static string Duration(object? value) => value is TimeSpan time ? time.ToString(@"h\:mm\:ss\.f", CultureInfo.InvariantCulture) : "";

    /// <summary>Seconds as hours, minutes and seconds.</summary>
    public static string Seconds(object? value)
    {
        if (value is null)
        {
            return "";
        }

        TimeSpan time = TimeSpan.FromSeconds(Math.Ceiling(Convert.ToDouble(value, CultureInfo.InvariantCulture)));
        return time.ToString(time.Days > 0 ? @"d\.hh\:mm\:ss" : @"h\:mm\:ss", CultureInfo.InvariantCulture);
    }

    /// <summary>How long ago a time in UTC is.</summary>
    public static string Age(object? value) => value is not DateTime time ? "" : (DateTime.UtcNow - time.ToUniversalTime()) switch
    {
        { TotalMinutes: < 1 } age => string.Create(CultureInfo.InvariantCulture, $"{Math.Max(0, age.TotalSeconds):F0} s"),
        { TotalHours: < 1 } age => string.Create(CultureInfo.InvariantCulture, $"{age.TotalMinutes:F0} min"),
        { TotalDays: < 1 } age => string.Create(CultureInfo.InvariantCulture, $"{age.TotalHours:F0} h"),
        TimeSpan age => string.Create(CultureInfo.InvariantCulture, $"{age.TotalDays:F0} d"),
    };

    /// <summary>A curve as a line of bars, at most 16 wide.</summary>
    public static string Spark(IEnumerable? values)
    {
        double[] all = [.. (values ?? Array.Empty<object>()).Cast<object>().Select(static value => Convert.ToDouble(value is PSObject wrapped ? wrapped.BaseObject : value, CultureInfo.InvariantCulture))];
        int width = Math.Min(16, all.Length);
        double[] shown = [.. Enumerable.Range(0, width).Select(i => all[(int)((long)i * all.Length / width)..(int)((long)(i + 1) * all.Length / width)].Average())];
        double low = shown.DefaultIfEmpty().Min();
        double range = shown.DefaultIfEmpty().Max() - low;
        return string.Concat(shown.Select(value => "▁▂▃▄▅▆▇█"[range > 0 ? (int)Math.Min(7, 8 * (value - low) / range) : 0]));
    }

    private static string Text(object? value) => value is null ? "" : value is PSObject wrapped ? wrapped.ToString() : Invariant(value);

    // Three digits with a suffix. They are cut, not rounded: steps that are not made are not shown.
    private static string Shortened(object value)
    {
        long count = Convert.ToInt64(value, CultureInfo.InvariantCulture);
        (long unit, string suffix) = count < 1_000_000 ? (1_000, "K") : (1_000_000, "M");
        long scale = (count / unit) switch { < 10 => 100, < 100 => 10, _ => 1 };
        return count < 1_000 ? Invariant(value) : ((decimal)(count * scale / unit) / scale).ToString("0.##", CultureInfo.CurrentCulture) + suffix;
    }

    private static int WindowWidth(PSHost? host)
    {
        const int Usual = 80;
        try
        {
            return host?.UI?.RawUI?.WindowSize.Width is int width and > 0 ? width : Usual;
        }
        catch (Exception exception) when (exception is HostException or NotImplementedException or IOException)
        {
            // A host without a window, as one of a job.
            return Usual;
        }
    }

    private static HashSet<string> Names(IEnumerable? values) => [.. Values(values)];

    // A list of one comes as the value itself from a script block.
    private static IEnumerable<string> Values(IEnumerable? values) => values switch
    {
        null => [],
        string text => [text],
        _ => values.Cast<object>().Select(Invariant),
    };

    // Pairs are of their own type, or, from another process, dictionary entries or objects with two properties.
    private static IEnumerable<(string Key, object Value)> Entries(IEnumerable? pairs)
    {
        foreach (object? pair in pairs ?? Array.Empty<object>())
        {
            yield return pair.Unwrap() switch
            {
                DictionaryEntry entry => (Invariant(entry.Key), entry.Value!),
                _ => (Invariant(PSObject.AsPSObject(pair).Properties["Key"].Value), PSObject.AsPSObject(pair).Properties["Value"].Value),
            };
        }
    }

    private static string Invariant(object value) => Convert.ToString(value, CultureInfo.InvariantCulture) ?? "";
}
