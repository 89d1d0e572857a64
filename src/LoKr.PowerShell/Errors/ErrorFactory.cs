using System.Management.Automation;
using System.Runtime.InteropServices;
using LoKr.Core.Errors;

namespace LoKr.PowerShell.Errors;

/// <summary>Turns every exception into an error record with a stable id, a category, a target and advice. The only place that does.</summary>
internal static class ErrorFactory
{
    /// <summary>Makes the record.</summary>
    /// <param name="exception">What went wrong.</param>
    /// <param name="target">The object being worked on; the exception's own target goes before it.</param>
    public static ErrorRecord Create(Exception exception, object? target = null)
    {
        LoKrException known = exception as LoKrException ?? Translate(exception);
        ErrorRecord record = new(known, known.ErrorId, Category(known), known.Target ?? target)
        {
            // PowerShell shows the recommendation below the message, so the message must not hold it as well.
            ErrorDetails = new ErrorDetails(known.Summary) { RecommendedAction = known.Advice },
        };
        return record;
    }

    /// <summary>Whether an exception is PowerShell's own way of stopping or reporting and must pass untouched.</summary>
    public static bool IsEngine(Exception exception) =>
        // The last is what -Confirm meets in a host that cannot ask.
        exception is RuntimeException or FlowControlException or PSInvalidOperationException;

    private static ErrorCategory Category(LoKrException exception) => exception.ErrorId switch
    {
        ModuleErrorIds.AccessDenied => ErrorCategory.PermissionDenied,
        ModuleErrorIds.TrainingInterrupted => ErrorCategory.OperationStopped,
        ModuleErrorIds.Unexpected => ErrorCategory.NotSpecified,
        _ => exception.Kind switch
        {
            LoKrErrorKind.InvalidArgument => ErrorCategory.InvalidArgument,
            LoKrErrorKind.InvalidData => ErrorCategory.InvalidData,
            LoKrErrorKind.NotFound => ErrorCategory.ObjectNotFound,
            LoKrErrorKind.AlreadyExists => ErrorCategory.ResourceExists,
            LoKrErrorKind.Unavailable => ErrorCategory.ResourceUnavailable,
            LoKrErrorKind.NotSupported => ErrorCategory.NotImplemented,
            LoKrErrorKind.InvalidOperation => ErrorCategory.InvalidOperation,
            LoKrErrorKind.LimitExceeded => ErrorCategory.LimitsExceeded,
            LoKrErrorKind.InputOutput => ErrorCategory.DeviceError,
            _ => ErrorCategory.NotSpecified,
        },
    };

    private static LoKrException Translate(Exception exception) => exception switch
    {
        TypeInitializationException { InnerException: { } inner } => inner as LoKrException ?? Translate(inner),
        System.Reflection.TargetInvocationException { InnerException: { } inner } => inner as LoKrException ?? Translate(inner),
        OutOfMemoryException => OutOfMemory(exception),
        // libtorch reports its own shortage as a plain torch error; the text is all it gives.
        ExternalException when exception.Message.Contains("out of memory", StringComparison.OrdinalIgnoreCase)
            || exception.Message.Contains("not enough memory", StringComparison.OrdinalIgnoreCase) => OutOfMemory(exception),
        ExternalException => new LoKrException(ModuleErrorIds.TorchError, LoKrErrorKind.InvalidOperation,
            $"libtorch refused the operation: {FirstLine(exception.Message)}", null, exception),
        UnauthorizedAccessException => new LoKrException(ModuleErrorIds.AccessDenied, LoKrErrorKind.InputOutput,
            exception.Message, "Check the permissions of the file or folder.", exception),
        FileNotFoundException or DirectoryNotFoundException => new LoKrException(ErrorIds.PathNotFound, LoKrErrorKind.NotFound,
            exception.Message, "Check the spelling of the path.", exception),
        IOException => new LoKrException(ModuleErrorIds.InputOutput, LoKrErrorKind.InputOutput,
            exception.Message, "Check that the disk has room and that no other program holds the file.", exception),
        ArgumentException => new LoKrException(ErrorIds.InvalidArgument, LoKrErrorKind.InvalidArgument, exception.Message, null, exception),
        _ => new LoKrException(ModuleErrorIds.Unexpected, LoKrErrorKind.InvalidOperation,
            $"{exception.GetType().Name}: {exception.Message}", "This is a fault of the module: please report it with $Error[0].Exception.InnerException.", exception),
    };

    private static LoKrException OutOfMemory(Exception exception) => new(ModuleErrorIds.OutOfMemory, LoKrErrorKind.LimitExceeded,
        $"Memory ran out: {FirstLine(exception.Message)}",
        "Use a smaller -BatchSize or -MaxLength (with -GradientAccumulation the result is the same), a smaller -R, or -DType bfloat16 on a GPU.", exception);

    // What follows the first line of a torch error is a C++ stack trace.
    private static string FirstLine(string text) => text.AsSpan().Trim().ToString().Split('\n', 2)[0].TrimEnd();
}

/// <summary>Error ids that arise in the cmdlets themselves; those of the library are in <see cref="LoKr.Core.Errors.ErrorIds"/>. They never change.</summary>
public static class ModuleErrorIds
{
    /// <summary>A path names something other than a file or folder, for example a registry key.</summary>
    public const string PathNotFileSystem = "LoKr.PathNotFileSystem";

    /// <summary>Memory of the host or the device ran out.</summary>
    public const string OutOfMemory = "LoKr.OutOfMemory";

    /// <summary>libtorch refused an operation.</summary>
    public const string TorchError = "LoKr.TorchError";

    /// <summary>Reading or writing a file failed.</summary>
    public const string InputOutput = "LoKr.InputOutput";

    /// <summary>The operating system does not allow the access.</summary>
    public const string AccessDenied = "LoKr.AccessDenied";

    /// <summary>Training was ended by a signal of the operating system.</summary>
    public const string TrainingInterrupted = "LoKr.TrainingInterrupted";

    /// <summary>The loss script block did not return one tensor.</summary>
    public const string LossNotATensor = "LoKr.LossNotATensor";

    /// <summary>A bug: please report it.</summary>
    public const string Unexpected = "LoKr.Unexpected";
}
