namespace LoKr.Core.Runtime;

/// <summary>One symbol version that a shared library asks of another: an entry of <c>.gnu.version_r</c>.</summary>
/// <param name="Library">Library that has to provide it, for example <c>libstdc++.so.6</c>.</param>
/// <param name="Version">Name of the version, for example <c>GLIBCXX_3.4.32</c>.</param>
/// <param name="Index">Number by which <c>.gnu.version</c> refers to it.</param>
/// <param name="Flags">Its flags; 2 (<c>VER_FLG_WEAK</c>) lets the library load without it.</param>
/// <param name="FlagsOffset">Position of the flags in the file.</param>
internal sealed record ElfVersionNeed(string Library, string Version, ushort Index, ushort Flags, int FlagsOffset);
