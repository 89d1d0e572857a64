using LoKr.Core;

namespace LoKr.Models.StableDiffusion.Training;

/// <summary>Reads pictures and, where that is asked for, passes over those that cannot be read.</summary>
internal static class UnreadablePictures
{
    /// <summary>The result of an action on a picture, or null where it cannot be read and is passed over.</summary>
    public static T? Try<T>(UnreadableImage choice, List<string> passedOver, string file, Func<T> action)
        where T : struct
    {
        try
        {
            return action();
        }
        catch (LoKrException exception) when (choice == UnreadableImage.Skip
            && exception.ErrorId is ErrorIds.ImageNotReadable or ErrorIds.FileNotReadable or ErrorIds.PathNotFound)
        {
            passedOver.Add(file);
            return null;
        }
    }

    /// <summary>The pictures that were passed over in a sentence, or null for none.</summary>
    public static string? Describe(IReadOnlyList<string> files) => files.Count == 0
        ? null
        : $"{files.Count} pictures cannot be read and are left out: {string.Join(", ", files.Take(10))}{(files.Count > 10 ? ", …" : "")}.";
}
