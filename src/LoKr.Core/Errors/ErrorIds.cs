namespace LoKr.Core;

/// <summary>
/// Every error id of the library. They are part of the public interface: scripts compare them, so they never change.
/// Each area keeps its own in a part of this class.
/// </summary>
public static partial class ErrorIds
{
    /// <summary>A file or folder that was named does not exist.</summary>
    public const string PathNotFound = "LoKr.PathNotFound";

    /// <summary>The destination exists and -Force was not given.</summary>
    public const string DestinationExists = "LoKr.DestinationExists";

    /// <summary>An argument is out of its range.</summary>
    public const string InvalidArgument = "LoKr.InvalidArgument";
}
