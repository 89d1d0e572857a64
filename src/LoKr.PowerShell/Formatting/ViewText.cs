using System.Collections;
using System.Globalization;

namespace LoKr.PowerShell.Formatting;

/// <summary>Cells of the views in LoKr.Format.ps1xml that need more than a property; the properties themselves stay raw numbers.</summary>
public static class ViewText
{
    /// <summary>A shape: <c>384×1536</c>.</summary>
    public static string Shape(IEnumerable? dimensions) => dimensions is null ? "" : string.Join('×', dimensions.Cast<object>().Select(Invariant));

    /// <summary>Names or other short values in one line.</summary>
    public static string List(IEnumerable? values) => values switch
    {
        null => "",
        string text => text,
        _ => string.Join(", ", values.Cast<object>().Select(Invariant)),
    };

    /// <summary>A count with thousands set apart.</summary>
    public static string Count(object? value) => value is null ? "" : Convert.ToInt64(value, CultureInfo.InvariantCulture).ToString("N0", CultureInfo.CurrentCulture);

    /// <summary>A number with a fixed number of decimals; empty where there is none.</summary>
    public static string Number(object? value, int decimals) =>
        value is null ? "" : Convert.ToDouble(value, CultureInfo.InvariantCulture).ToString("F" + decimals.ToString(CultureInfo.InvariantCulture), CultureInfo.CurrentCulture);

    /// <summary>A number that may be very small, such as a learning rate.</summary>
    public static string Short(object? value) => value is null ? "" : Convert.ToDouble(value, CultureInfo.InvariantCulture).ToString("G4", CultureInfo.CurrentCulture);

    /// <summary>Seconds, minutes and hours of a time span: <c>0:01:05.3</c>.</summary>
    public static string Duration(object? value) => value is TimeSpan time ? time.ToString(@"h\:mm\:ss\.f", CultureInfo.InvariantCulture) : "";

    private static string Invariant(object value) => Convert.ToString(value, CultureInfo.InvariantCulture) ?? "";
}
