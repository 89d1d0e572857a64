namespace LoKr.Core.Formats.AdapterFiles;

/// <summary>A module of the model that an adapter is for.</summary>
/// <param name="Name">Full dotted name.</param>
/// <param name="WeightShape">Shape of its weight, or null where it is not known.</param>
internal sealed record KnownModule(string Name, IReadOnlyList<long>? WeightShape);
