namespace LoKr.Core.Adapters;

/// <summary>The Python class of a base model without task type, kept for PEFT's <c>AutoPeftModel</c> (<c>auto_mapping</c>).</summary>
/// <param name="BaseModelClass">Name of the class, for example <c>BertModel</c>.</param>
/// <param name="ParentLibrary">Module that defines it.</param>
public sealed record AutoMapping(string BaseModelClass, string ParentLibrary);
