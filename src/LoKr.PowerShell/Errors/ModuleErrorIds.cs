using LoKr.Core.Errors;

namespace LoKr.PowerShell.Errors;

/// <summary>Error ids that arise in the cmdlets themselves; those of the library are in <see cref="ErrorIds"/>. They never change.</summary>
public static class ModuleErrorIds
{
    /// <summary>A path names something other than a file or folder, for example a registry key.</summary>
    public const string PathNotFileSystem = "LoKr.PathNotFileSystem";

    /// <summary>Several objects of one command have the same destination.</summary>
    public const string DestinationShared = "LoKr.DestinationShared";

    /// <summary>Memory of the host or the device ran out.</summary>
    public const string OutOfMemory = "LoKr.OutOfMemory";

    /// <summary>libtorch refused an operation.</summary>
    public const string TorchError = "LoKr.TorchError";

    /// <summary>Reading or writing a file failed.</summary>
    public const string InputOutput = "LoKr.InputOutput";

    /// <summary>The operating system does not allow the access.</summary>
    public const string AccessDenied = "LoKr.AccessDenied";

    /// <summary>The loss script block did not return one tensor.</summary>
    public const string LossNotATensor = "LoKr.LossNotATensor";

    /// <summary>A job was asked for with an object that is in the memory of this process.</summary>
    public const string JobNeedsPath = "LoKr.JobNeedsPath";

    /// <summary>PowerShell cannot start a process for a job here.</summary>
    public const string JobNotAvailable = "LoKr.JobNotAvailable";

    /// <summary>A program of a scheduler is missing or refused what it was asked for, or the process that starts jobs did not begin.</summary>
    public const string SchedulerFailed = "LoKr.SchedulerFailed";

    /// <summary>A bug: please report it.</summary>
    public const string Unexpected = "LoKr.Unexpected";
}
