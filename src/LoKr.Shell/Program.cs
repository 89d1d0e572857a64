using System.Management.Automation.Runspaces;
using Microsoft.PowerShell;

// The module is imported at the start, not on first use of a cmdlet, so that scripts can name its types in their first line.
InitialSessionState state = InitialSessionState.CreateDefault2();
state.ThrowOnRunspaceOpenError = true;
state.ImportPSModule([Path.Combine(AppContext.BaseDirectory, "Modules", "LoKr", "LoKr.psd1")]);
return ConsoleShell.Start(
    state,
    "PowerShell with the module LoKr",
    """
    LoKr.Shell is PowerShell with the module LoKr imported. It takes the arguments of pwsh:

      LoKr.Shell [-File] script.ps1 [-Name value] [-Switch] [value] ...
      LoKr.Shell -Command 'text'
      LoKr.Shell [-NoLogo] [-NoProfile] [-NoExit] [-NonInteractive] [-WorkingDirectory folder]

    All of them: https://learn.microsoft.com/powershell/module/microsoft.powershell.core/about/about_pwsh
    """,
    args);
