namespace LoKr.Core.Formats;

/// <summary>
/// A folder that appears complete or not at all: written under a temporary name beside its destination and renamed by <see cref="Commit"/>.
/// Disposing without a commit removes what was written.
/// </summary>
public sealed class StagedDirectory : IDisposable
{
    /// <summary>Starts a folder.</summary>
    /// <param name="destination">Where it will be.</param>
    /// <param name="force">Replace what is there; otherwise an existing, non-empty destination is an error.</param>
    public StagedDirectory(string destination, bool force) => throw new NotImplementedException();

    /// <summary>Temporary folder to write into.</summary>
    public string Path => throw new NotImplementedException();

    /// <summary>Flushes and renames; the former folder, if any, is removed only after the new one is in place.</summary>
    public void Commit() => throw new NotImplementedException();

    /// <inheritdoc/>
    public void Dispose() => throw new NotImplementedException();
}
