package api

// Setting is one of the director's settings, which have the names of the kernel's sysctls where they mean the same.
type Setting struct {
	// Name is in full: "net.ipv4.vs.conn_reuse_mode" for the kernel's own, "uvs.template_rearm" for what IPVS lacks.
	// A request may leave out net.ipv4 and write slashes for the dots.
	Name string `json:"name"`
	// Value is the text that sysctl prints: a number, or two with a space between.
	Value string `json:"value"`
	// Default is the value at the start. Absent in a request, as is Note.
	Default string `json:"default,omitempty"`
	// Note says where a setting is accepted and kept but does nothing, and why.
	Note string `json:"note,omitempty"`
}

// MaxSettings is the most settings in one request.
const MaxSettings = 1000

// SettingsRequest is the body of POST /v1/sysctl: all are set, or, when one is refused, none.
type SettingsRequest struct {
	// Settings have a name and a value each.
	Settings []Setting `json:"settings"`
}

// SettingsReply answers GET /v1/sysctl with the settings named by the query parameters "name", in their order, or with
// all of them in alphabetical order; and POST /v1/sysctl with those it set.
type SettingsReply struct {
	// Settings is never null.
	Settings []Setting `json:"settings"`
}
