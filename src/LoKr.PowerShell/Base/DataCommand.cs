using System.Collections;
using System.ComponentModel;
using System.Management.Automation;
using LoKr.Core.Data;
using LoKr.PowerShell.Binding;

namespace LoKr.PowerShell.Base;

/// <summary>A cmdlet that reads rows of text data: which columns it takes, and what becomes of rows that do not fit.</summary>
[EditorBrowsable(EditorBrowsableState.Never)]
public abstract class DataCommand : LoKrCommand
{
    /// <summary>Names of columns in the data, by the name that is expected: @{ text = 'subject'; label = 'team' }.</summary>
    [Parameter]
    [ValidateNotNull]
    public Hashtable Column { get; set; } = [];

    /// <summary>Skips rows that do not fit (a line that is not JSON, a missing column, an empty text, an unknown label), and says how many they are and which. Without it the first is an error.</summary>
    [Parameter]
    public SwitchParameter SkipInvalid { get; set; }

    /// <summary>Begins a reading of data as the parameters say.</summary>
    /// <param name="lossOn">Which tokens of answers carry loss.</param>
    /// <param name="day">The day that chat templates write; null for today.</param>
    private protected DataReading BeginReading(LossOn lossOn = default, DateTime? day = null) => DataRows.BeginReading(Column, SkipInvalid, lossOn, day);
}
