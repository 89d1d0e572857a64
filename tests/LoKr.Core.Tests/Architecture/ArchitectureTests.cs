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
            "Errors", "IO", "Runtime", "Safetensors", "Gguf", "Distributed", "Metrics", "Chat", "Nn", "Configuration", "Factors", "Targeting", "Layers", "Model", "Merging",
            "Layouts", "Conversion", "Data", "Training", "Inference", "Runs",
        ],
        ["LoKr.Models"] = ["Families", "Tokenization", "Diffusion", "Loading"],
        ["LoKr.PowerShell"] = ["Errors", "Hosting", "Binding", "Formatting", "Base", "Commands"],
        ["LoKr.Shell"] = [],
    };

    /// <summary>Projects in the order of the arrows.</summary>
    private static readonly string[] s_projects = ["LoKr.Core", "LoKr.Models", "LoKr.PowerShell", "LoKr.Shell"];

    /// <summary>Static collections that have to be filled later, with the reason.</summary>
    private static readonly Dictionary<string, string> s_justifiedCollections = new()
    {
        // A module of a script has no place for its wrapper, and every cmdlet has to find the same one; an entry ends with its module.
        ["LoKr.PowerShell/Binding/Transformations.cs"] = "s_wrappers",

        // A rehearsal changes nothing, so the model that the next cmdlet gets cannot hold its adapter; an entry ends with its model.
        ["LoKr.PowerShell/Hosting/Rehearsals.cs"] = "s_rehearsals",
    };

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

    /// <summary>
    /// A collection that is only read after it was created is a table; one that is filled later is state, however read-only its field is.
    /// </summary>
    [Fact]
    public void No_static_collection_is_filled_later() => AssertNone(s_projects.SelectMany(project =>
    {
        SourceFile[] files = [.. Files().Where(file => file.Project == project)];
        return files.SelectMany(file => StaticCollectionPattern().Matches(file.Code)
            .Where(match => !match.Groups["type"].Value.StartsWith("Frozen", StringComparison.Ordinal) && !match.Groups["type"].Value.StartsWith("Immutable", StringComparison.Ordinal))
            .Where(match => s_justifiedCollections.GetValueOrDefault(file.Path) != match.Groups["name"].Value)
            .Where(match => CachePattern().IsMatch(match.Groups["type"].Value) || IsFilled(match, file, files))
            .Select(match => $"{file.Path}: {match.Groups["name"].Value}, a {match.Groups["type"].Value.Trim()}."));
    }));

    [Theory]
    [InlineData("private static readonly ConcurrentDictionary<(string A, int B), Regex> s_cache = new();", "", true)]
    [InlineData("internal static readonly ConditionalWeakTable<A, B> s_table = [];", "", true)]
    [InlineData("private static readonly Dictionary<string, int> s_names = new();", "s_names.TryAdd(a, 1);", true)]
    [InlineData("private static readonly Dictionary<string, int> s_names = new();", "s_names[a] = 1;", true)]
    [InlineData("private static readonly int[] s_counts = new int[4];", "s_counts[f(a[1])]++;", true)]
    [InlineData("public static List<string> Names { get; } = [];", "Names.Add(a);", true)]
    [InlineData("private static readonly int[] s_counts = [1, 2];", "if (s_counts[a] == 1 || s_counts[0] >= 2) { }", false)]
    [InlineData("private static readonly Dictionary<string, int> s_names = new() { [a] = 1 };", "s_names.TryGetValue(a, out int b); own.s_names2[a] = 1;", false)]
    public void Static_collections_that_are_filled_later_are_found(string field, string use, bool found)
    {
        SourceFile file = SourceFile.Parse("LoKr.Core/IO/A.cs", $"    {field}\n    void F() {{ {use} }}\n");
        Match match = Assert.Single(StaticCollectionPattern().Matches(file.Code));
        Assert.Equal(found, CachePattern().IsMatch(match.Groups["type"].Value) || IsFilled(match, file, [file]));
    }

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

    // A private field is used in its own file only.
    private static bool IsFilled(Match field, SourceFile file, IEnumerable<SourceFile> project)
    {
        string name = Regex.Escape(field.Groups["name"].Value);
        Regex change = new($@"(?<!\w){name}(?:\.(?:Add|TryAdd|AddRange|AddOrUpdate|GetOrAdd|Remove|RemoveAt|RemoveAll|Clear|Insert|Enqueue|Push|Pop|TryDequeue|Set|UnionWith)\(|(?<index>\[(?:[^\[\]]|\[[^\[\]]*\])*\])\s*(?:=(?!=|>)|[-+|&^*/]=|\?\?=|\+\+|--))");
        return (field.Value.TrimStart().StartsWith("private", StringComparison.Ordinal) ? [file] : project).Any(other => change.IsMatch(other.Code));
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

    [GeneratedRegex(@"^\s*(?:(?:public|internal|private|protected)\s+)*static\s+(?:readonly\s+)?(?<type>[\w.]+<(?:(?!\w\()[\w.<>?,\[\]() ])*>|[\w.<>?]+\[[\],]*\]|StringBuilder|Random)\??\s+(?<name>\w+)\s*(?:=(?!>)|;|\{\s*get;)", RegexOptions.Multiline)]
    private static partial Regex StaticCollectionPattern();

    [GeneratedRegex(@"^(?:[\w.]*\.)?(?:Concurrent\w+|ConditionalWeakTable|ThreadLocal|AsyncLocal|Queue|Stack|StrongBox|StringBuilder|Random|\w*Cache\w*)\b")]
    private static partial Regex CachePattern();

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
