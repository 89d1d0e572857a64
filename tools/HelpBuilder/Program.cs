using System.Management.Automation;
using System.Management.Automation.Runspaces;
using HelpBuilder;

const string Usage = """
    HelpBuilder MANIFEST PAGES -Maml FILE    writes the file that Get-Help reads
    HelpBuilder MANIFEST PAGES -Update       writes the generated end of every page: syntax and parameters
    HelpBuilder MANIFEST PAGES -Check        names the pages whose generated end is not what the module says

    MANIFEST is LoKr.psd1 in the folder of the built module; PAGES is docs/en-US.
    """;

if (args is not [string manifest, string folder, string mode, ..] || (mode == "-Maml") != (args.Length == 4))
{
    Console.Error.WriteLine(Usage);
    return 64;
}

CmdletInfo[] cmdlets = Cmdlets(Path.GetFullPath(manifest));
HelpWriter writer = new(new ParameterDocs(Path.Combine(Path.GetDirectoryName(Path.GetFullPath(manifest))!, "LoKr.PowerShell.xml")), cmdlets[0].Module.ProjectUri);
string[] names = [.. Directory.EnumerateFiles(folder, "*-*.md").Select(file => Path.GetFileNameWithoutExtension(file))];
string[] alone =
[
    .. cmdlets.Select(cmdlet => cmdlet.Name).Except(names).Select(name => $"{name} has no page in {folder}."),
    .. names.Except(cmdlets.Select(cmdlet => cmdlet.Name)).Select(name => $"{name}.md describes a cmdlet that the module does not have."),
];
if (alone.Length > 0)
{
    return Fail(alone);
}

switch (mode)
{
    case "-Maml":
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(args[3]))!);
        File.WriteAllText(args[3], writer.Maml(cmdlets.Select(cmdlet => (HelpPage.Parse(File.ReadAllText(PageOf(cmdlet))), cmdlet))));
        return 0;
    case "-Update":
        foreach (CmdletInfo cmdlet in cmdlets)
        {
            File.WriteAllText(PageOf(cmdlet), writer.Page(File.ReadAllText(PageOf(cmdlet)), cmdlet));
        }

        return 0;
    case "-Check":
        return Fail([.. cmdlets.Where(cmdlet => File.ReadAllText(PageOf(cmdlet)) is string page && page != writer.Page(page, cmdlet))
            .Select(cmdlet => $"{PageOf(cmdlet)} is not what the module says. Run HelpBuilder with -Update.")]);
    default:
        return Fail([Usage]);
}

string PageOf(CmdletInfo cmdlet) => Path.Combine(folder, $"{cmdlet.Name}.md");

// The engine knows parameter sets, positions and aliases; importing the module loads nothing native.
static CmdletInfo[] Cmdlets(string manifest)
{
    InitialSessionState state = InitialSessionState.CreateDefault2();
    state.ThrowOnRunspaceOpenError = true;
    state.ImportPSModule([manifest]);
    using Runspace runspace = RunspaceFactory.CreateRunspace(state);
    runspace.Open();
    using PowerShell shell = PowerShell.Create(runspace).AddCommand("Get-Command").AddParameter("Module", "LoKr");
    CmdletInfo[] cmdlets = [.. shell.Invoke<CmdletInfo>().OrderBy(cmdlet => cmdlet.Name, StringComparer.Ordinal)];

    // Resolved while the runspace is there.
    _ = cmdlets.Sum(cmdlet => cmdlet.ParameterSets.Count + cmdlet.Parameters.Count);
    return cmdlets;
}

static int Fail(string[] messages)
{
    foreach (string message in messages)
    {
        Console.Error.WriteLine($"HelpBuilder: error: {message}");
    }

    return messages.Length == 0 ? 0 : 1;
}
