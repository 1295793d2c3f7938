package api

import "context"

// Backend is what the server stands on: package control implements it over the desired state and the packet path.
//
// Every method may be called by many goroutines at once and returns when ctx ends, with its error, leaving nothing half
// done. Requests have passed Op.Check or ServiceKey.Check: required fields are there, no others are, names of protocols,
// methods, tunnels and roles are known, addresses have no zone and are not IPv4-mapped. What remains is the backend's:
// existence, ranges, scheduler and flag names, address kinds, families that do not fit.
//
// An error that wraps a Code is passed on with it, any other reaches the client as Internal with its text.
type Backend interface {
	// Change applies the operations of req in order as one change and reports on each; req.OnError is one of the three
	// values, never empty. The reply has one result per operation. Changes are serialised: none sees half of another.
	// The packet path sees the outcome by one swap, before Change returns. The error is for a change that could not be
	// dealt with at all (shutting down, out of memory); then nothing was applied. A refused operation is not an error
	// of Change but of its result.
	Change(ctx context.Context, req *ChangeRequest) (*ChangeReply, error)

	// Services returns all services in the kernel's list order, their servers latest added first, with counters; or
	// just the one named by key. A key that names none is ServiceNotFound. The slice belongs to the caller.
	Services(ctx context.Context, key *ServiceKey) ([]Service, error)

	// Connections calls yield for each connection and template, in no particular order, without holding the table's
	// locks while yield runs, since that may block on a slow reader. A connection that lives through the whole call is
	// given exactly once; one that comes or goes meanwhile may be missing. It stops when yield fails and returns that
	// error. A filter for a service that is not there is ServiceNotFound.
	Connections(ctx context.Context, filter ConnectionFilter, yield func(*Connection) error) error

	// Timeouts returns what ipvsadm -L --timeout shows.
	Timeouts(ctx context.Context) (Timeouts, error)

	// Daemons returns the running sync daemons, master first, with defaults filled in.
	Daemons(ctx context.Context) ([]Daemon, error)

	// Marks returns the mark rules in the order in which they decide.
	Marks(ctx context.Context) ([]MarkRule, error)

	// Settings returns the settings of those names in their order, or all in alphabetical order. A name that there is
	// not is SettingNotFound.
	Settings(ctx context.Context, names []string) ([]Setting, error)

	// Set changes settings, all or none, and returns them as they are now. It is serialised with Change.
	Set(ctx context.Context, settings []Setting) ([]Setting, error)

	// Explain says what would become of a packet if it came now, and changes nothing. req has passed its Check.
	Explain(ctx context.Context, req *ExplainRequest) (*Explanation, error)

	// Drain takes a real server's weight in the services chosen and begins to drain it, or goes on with another deadline. A
	// server that there is not is ServerNotFound. Drains describes all that are being drained, in the order of services and
	// addresses; Undrain gives weights back and forgets. The slices are never nil.
	Drain(ctx context.Context, req *DrainRequest) ([]Drain, error)
	Drains(ctx context.Context) ([]Drain, error)
	Undrain(ctx context.Context, req *UndrainRequest) ([]Drain, error)

	// Shadow begins and ends trials of schedulers on a service's new connections, all or none, and returns the service's
	// trials. Shadows returns those of all services, or of the one named. Req has passed its Check.
	Shadow(ctx context.Context, req *ShadowRequest) (*ShadowsReply, error)
	Shadows(ctx context.Context, key *ServiceKey) (*ShadowsReply, error)

	// Health describes the health of all real servers, or of those of one service: those that health has removed too. A key
	// that names no service is ServiceNotFound. The slice is never nil.
	Health(ctx context.Context, key *ServiceKey) ([]ServerHealth, error)

	// TestChecks makes checks once, now, whatever is set, and changes nothing. req has passed its Check. The slice is never nil.
	TestChecks(ctx context.Context, req *CheckTestRequest) ([]CheckTest, error)

	// Reload reads the configuration file again and applies what differs from what the director has, as one change; or only says
	// what that would be. What is wrong with the file is in the reply. Save makes the file say what the director has.
	Reload(ctx context.Context, req *ReloadRequest) (*Reload, error)
	Save(ctx context.Context, req *SaveRequest) (*Saved, error)

	// Trace calls yield for each frame that meets req and comes in from now on, until ctx ends or yield fails, with that
	// error. begun is called once, before the first: whoever waits for it misses nothing. No packet waits for a slow reader:
	// what is too much for it is missing, and counted. req has passed its Check.
	Trace(ctx context.Context, req *TraceRequest, begun func() error, yield func(*TraceEvent) error) error

	// Doctor asks the network for mistakes around the director, which takes some seconds, and changes nothing.
	Doctor(ctx context.Context) (*Diagnosis, error)

	// Status returns the director's state; see Status.
	Status(ctx context.Context) (*Status, error)

	// Version says what runs.
	Version(ctx context.Context) (Version, error)
}
