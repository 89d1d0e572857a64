namespace LoKr.Core.Formats;

/// <summary>Members of a JSON object in order, for <see cref="PythonJson"/>.</summary>
internal sealed class JsonMembers : List<KeyValuePair<string, object?>>
{
    public void Add(string key, object? value) => Add(KeyValuePair.Create(key, value));
}
