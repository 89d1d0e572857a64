using System.Text.RegularExpressions;
using LoKr.Testing;
using Xunit;

namespace LoKr.Core.Tests.Architecture;

/// <summary>The structure that docs/architecture.md describes, checked on the sources of every project.</summary>
public sealed partial class ArchitectureTests
{
    /// <summary>Folders of each project in the order of the arrows: a folder uses only those before it.</summary>
    private static readonly Dictionary<string, string[]> s_rooms = new()
    {
        ["LoKr.Core"] =
        [
            "Errors", "IO", "Runtime", "Safetensors", "Gguf", "Distributed", "Nn", "Configuration", "Factors", "Targeting", "Layers", "Model", "Merging",
            "Layouts", "Conversion", "Data", "Training", "Inference", "Runs",
        ],
        ["LoKr.Models"] = ["Families", "Tokenization", "Diffusion", "Loading"],
        ["LoKr.PowerShell"] = ["Errors", "Hosting", "Binding", "Formatting", "Base", "Commands"],
        ["LoKr.Shell"] = [],
    };

    /// <summary>Projects in the order of the arrows.</summary>
    private static readonly string[] s_projects = ["LoKr.Core", "LoKr.Models", "LoKr.PowerShell", "LoKr.Shell"];

    private static readonly Lazy<IReadOnlyList<SourceFile>> s_files = new(() => SourceFile.ReadAll(Path.Combine(Repository(), "src")));

    [Fact]
    public void Namespaces_equal_folders() => AssertNone(Files().SelectMany(file => NamespacePattern().Matches(file.Code)
        .Select(match => match.Groups["name"].Value)
        .Where(name => name != Path.GetDirectoryName(file.Path)!.Replace('/', '.').Replace('\\', '.'))
        .Select(name => $"{file.Path} is in namespace {name}.")));

    [Fact]
    public void Every_folder_is_a_room_of_the_design() => AssertNone(Files()
        .Where(file => file.Room.Length == 0 ? file.Project != "LoKr.Shell" : !s_rooms[file.Project].Contains(file.Room))
        .Select(file => $"{file.Path} is in no room of {file.Project}.")
        .Distinct());

    [Fact]
    public void A_folder_uses_only_folders_above_it() => AssertNone(Files().SelectMany(file =>
    {
        string[] rooms = s_rooms[file.Project];
        int own = Array.IndexOf(rooms, file.Room);
        return ReferencePattern().Matches(file.Code)
            .Where(match => "LoKr." + match.Groups["project"].Value == file.Project && Array.IndexOf(rooms, match.Groups["room"].Value) > own)
            .Select(match => $"{file.Path} uses {match.Groups["room"].Value}.")
            .Distinct();
    }));

    [Fact]
    public void A_project_uses_only_projects_below_it() => AssertNone(Files().SelectMany(file =>
    {
        int own = Array.IndexOf(s_projects, file.Project);
        return s_projects.Skip(own + 1)
            .Where(project => Regex.IsMatch(file.Code, $@"\b{Regex.Escape(project)}\b"))
            .Select(project => $"{file.Path} uses {project}.");
    }));

    [Fact]
    public void The_library_never_names_a_cmdlet_or_a_parameter() => AssertNone(Files()
        .Where(file => file.Project is "LoKr.Core" or "LoKr.Models")
        .SelectMany(file => file.Strings.Where(text => CmdletPattern().IsMatch(text)).Select(text => $"{file.Path}: {text}")));

    [Fact]
    public void Only_the_shell_touches_the_console() => AssertNone(Files()
        .Where(file => file.Project != "LoKr.Shell" && ConsolePattern().IsMatch(file.Code))
        .Select(file => $"{file.Path} uses Console."));

    [Fact]
    public void Nothing_collects_garbage_by_hand() => AssertNone(Files()
        .Where(file => CollectPattern().IsMatch(file.Code))
        .Select(file => $"{file.Path} calls GC.Collect."));

    [Fact]
    public void Classes_are_written_in_one_part() => AssertNone(Files()
        .Where(file => PartialPattern().IsMatch(file.Code) && !GeneratedPattern().IsMatch(file.Code))
        .Select(file => $"{file.Path} declares a partial type that no generator completes."));

    /// <summary>The loaders of native and managed libraries serve the process, as the libraries themselves do.</summary>
    [Fact]
    public void Only_the_loaders_have_mutable_static_state() => AssertNone(Files()
        .Where(file => file.Path is not ("LoKr.Core/Runtime/TorchRuntime.cs" or "LoKr.Core/Runtime/NativeLoader.cs" or "LoKr.PowerShell/Hosting/ModuleLoader.cs"))
        .SelectMany(file => MutableStaticPattern().Matches(file.Code).Select(match => $"{file.Path}: {match.Value.Trim()}")));

    /// <summary>A newcomer reads a flow from its first file to its last: each walk in docs/architecture.md lists them.</summary>
    [Fact]
    public void The_three_flows_touch_at_most_twenty_files_each()
    {
        string text = File.ReadAllText(Path.Combine(Repository(), "docs", "architecture.md"));
        string[] flows = [.. FlowPattern().Split(text).Skip(1)];

        Assert.Equal(3, flows.Length);
        Assert.All(flows, flow =>
        {
            string[] files = [.. FlowFilePattern().Matches(flow.Split("\n## ")[0]).Select(match => match.Groups["file"].Value)];
            Assert.InRange(files.Length, 5, 20);
            Assert.Equal(files.Distinct(), files);
            Assert.All(files, file => Assert.True(File.Exists(Path.Combine(Repository(), "src", file)), $"docs/architecture.md lists {file}, which does not exist."));
        });
    }

    private static IReadOnlyList<SourceFile> Files()
    {
        IReadOnlyList<SourceFile> files = s_files.Value;
        Assert.All(s_projects, project => Assert.Contains(files, file => file.Project == project));
        return files;
    }

    private static string Repository()
    {
        Assert.SkipWhen(Fixtures.Repository is null, "The tests run outside the repository.");
        return Fixtures.Repository!;
    }

    private static void AssertNone(IEnumerable<string> violations)
    {
        string[] found = [.. violations];
        Assert.True(found.Length == 0, string.Join(Environment.NewLine, found.Prepend($"{found.Length} violations:")));
    }

    [GeneratedRegex(@"^\s*namespace (?<name>[\w.]+)", RegexOptions.Multiline)]
    private static partial Regex NamespacePattern();

    [GeneratedRegex(@"(?<![\w.])(?:LoKr\.)?(?<project>Core|Models|PowerShell)\.(?<room>[A-Z]\w*)(?=[.;])")]
    private static partial Regex ReferencePattern();

    [GeneratedRegex(@"\b[A-Z][a-z]+-LoKr[A-Z]|(?<=^|[\s(""])-[A-Z][A-Za-z]{2,}\b")]
    private static partial Regex CmdletPattern();

    [GeneratedRegex(@"^\s*(?:(?:public|internal|private|protected|volatile)\s+)*static\s+(?:volatile\s+)?(?!readonly\b)[\w<>?,.\[\] ]+\s\w+\s*(?:=(?!>)|;)|^\s*public static [^=(;]*\{[^}]*\bset;", RegexOptions.Multiline)]
    private static partial Regex MutableStaticPattern();

    [GeneratedRegex(@"\bConsole\.")]
    private static partial Regex ConsolePattern();

    [GeneratedRegex(@"\bGC\.Collect\b")]
    private static partial Regex CollectPattern();

    [GeneratedRegex(@"\bpartial\s+(?:class|struct|record|interface)\b")]
    private static partial Regex PartialPattern();

    [GeneratedRegex(@"\[(?:GeneratedRegex|LibraryImport)\(")]
    private static partial Regex GeneratedPattern();

    [GeneratedRegex(@"^## Flow [abc]:", RegexOptions.Multiline)]
    private static partial Regex FlowPattern();

    [GeneratedRegex(@"^\d+\. `(?<file>[\w./]+\.cs)`", RegexOptions.Multiline)]
    private static partial Regex FlowFilePattern();
}
