package api

// ReloadRequest is the body of POST /v1/reload: the configuration file is read again.
type ReloadRequest struct {
	// DryRun only says what would be done.
	DryRun bool `json:"dryRun,omitempty"`
	// Prune takes away, too, what was made at run time and isn't in the file.
	Prune bool `json:"prune,omitempty"`
}

// Check says what is wrong with a request: nothing can be.
func (r *ReloadRequest) Check() error { return nil }

// Reload answers POST /v1/reload: with status 200, or 409 when something is wrong with the file or it could not be applied;
// then nothing was changed.
type Reload struct {
	// File is the configuration file's name.
	File string `json:"file"`
	// Applied says that the differences were applied, all by one change.
	Applied bool `json:"applied"`
	// Differences are what the file asks for and the director hasn't, or the reverse.
	Differences []Difference `json:"differences"`
	// Restart says what else differs and only a restart of uvsd brings about.
	Restart []string `json:"restart"`
	// Errors are all that is wrong.
	Errors []FileError `json:"errors"`
}

// Kinds of a difference.
const (
	Added   = "added"
	Changed = "changed"
	Removed = "removed"
	Kept    = "kept"    // it isn't in the file, was made at run time, and stays
	Dropped = "dropped" // made at run time and kept until now; the file says something else by now
)

// Difference is one thing in which the running director and the file differ.
type Difference struct {
	// Kind is Added, Changed, Removed, Kept or Dropped.
	Kind string `json:"kind"`
	// Service and Server say what it is about, where it is about one; Label is its name.
	Service *ServiceKey `json:"service,omitempty"`
	Server  *ServerKey  `json:"server,omitempty"`
	Label   string      `json:"label,omitempty"`
	// Text says the rest, such as "weight 1 -> 2".
	Text string `json:"text,omitempty"`
}

// FileError is one thing that is wrong with a file.
type FileError struct {
	// File is the file's name; Line and Column count from 1, and are 0 where no line is to blame.
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	// Text says what is wrong and what may have been meant.
	Text string `json:"text"`
}

// SaveRequest is the body of POST /v1/save: the configuration file is to say what the director has.
type SaveRequest struct {
	// Write writes the file; else its text is returned only.
	Write bool `json:"write,omitempty"`
}

// Check says what is wrong with a request: nothing can be.
func (r *SaveRequest) Check() error { return nil }

// Saved answers POST /v1/save.
type Saved struct {
	// File is the configuration file's name; Written says that it was written.
	File    string `json:"file"`
	Written bool   `json:"written"`
	// Text is what it has, or would have: as it was, comments and all, but for what differs.
	Text string `json:"text"`
	// Differences are what was edited in it.
	Differences []Difference `json:"differences"`
}

// Snapshot is all that is configured of a director, at one moment.
type Snapshot struct {
	// Revision is Status's. It says whether something changed since.
	Revision uint64
	// Services are as GET /v1/services lists them, without what was counted. A server that is being drained has the weight that
	// it will get back.
	Services []Service
	// Marks, Settings, Timeouts and Daemons are as their own requests have them.
	Marks    []MarkRule
	Settings []Setting
	Timeouts Timeouts
	Daemons  []Daemon
}
