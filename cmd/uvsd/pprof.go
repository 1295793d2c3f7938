package main

import (
	"net/http"
	"net/http/pprof"

	"uvs/control/api"
)

// profilePrefix is where Go's tools expect a process's profiles.
const profilePrefix = "/debug/pprof/"

// profiles are the handlers of --pprof: whoever may use the control socket may have them.
func (o *options) profiles() []api.Aside {
	if !o.pprof {
		return nil
	}
	mux := http.NewServeMux()
	mux.HandleFunc(profilePrefix, pprof.Index) // and the profiles that it names
	mux.HandleFunc(profilePrefix+"cmdline", pprof.Cmdline)
	mux.HandleFunc(profilePrefix+"profile", pprof.Profile)
	mux.HandleFunc(profilePrefix+"symbol", pprof.Symbol)
	mux.HandleFunc(profilePrefix+"trace", pprof.Trace)
	return []api.Aside{{Prefix: profilePrefix, Handler: mux}}
}
