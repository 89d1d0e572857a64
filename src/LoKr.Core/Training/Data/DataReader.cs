namespace LoKr.Core.Training.Data;

/// <summary>Reads rows from JSON Lines (<c>.jsonl</c>, <c>.ndjson</c>), a JSON array (<c>.json</c>) or CSV (<c>.csv</c>, <c>.tsv</c>).</summary>
public static class DataReader
{
    /// <summary>Reads a whole file.</summary>
    /// <param name="path">The file; its extension says the format.</param>
    public static IReadOnlyList<DataRow> ReadFile(string path) => throw new NotImplementedException();
}
