// Package page is the local web page: its files, which the program holds, and
// the guard before them and the API. It knows no models; the API is handed in.
package page

import (
	"embed"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

//go:embed static
var static embed.FS

// Limits of a request.
const (
	maxBody = 64 << 10
	// policy lets a page load the program's own files and talk to the program,
	// and nothing else: no inline script or style, no frame, no other host, and
	// no text that is turned into markup.
	policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)

// Handler serves the page, and api below /api/, at listen ("host:port" of a
// bound listener). Only requests that a page of this very address makes, or
// that no browser makes, reach the API.
func Handler(listen string, api http.Handler) http.Handler {
	root, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	files := http.FileServerFS(root)
	mux := http.NewServeMux()
	mux.Handle("/api/", api)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the page is only read", http.StatusMethodNotAllowed)
		case r.URL.Path != "/" && strings.HasSuffix(r.URL.Path, "/"):
			http.NotFound(w, r) // no listing of folders
		default:
			files.ServeHTTP(w, r)
		}
	})
	return &guard{listen: listen, next: mux}
}

// A guard answers requests of the page's own origin only.
type guard struct {
	listen string
	next   http.Handler
}

func (g *guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	switch {
	case !ownHost(r.Host, g.listen):
		http.Error(w, "this address is not the page's: a name that only leads here is refused", http.StatusMisdirectedRequest)
		return
	case !ownOrigin(r):
		http.Error(w, "requests from other sites are refused", http.StatusForbidden)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	g.next.ServeHTTP(w, r)
}

// ownHost reports whether the Host of a request names the listener itself: by
// its address or as localhost, with its port. A name that an attacker's DNS
// turns to this machine is neither.
func ownHost(host, listen string) bool {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = strings.Trim(host, "[]"), "80"
	}
	bound, boundPort, err := net.SplitHostPort(listen)
	if err != nil || port != boundPort {
		return false
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	if err != nil {
		return false
	}
	if ip.IsLoopback() {
		return true
	}
	own, err := netip.ParseAddr(bound)
	return err == nil && (own.IsUnspecified() || own.Unmap() == ip.Unmap())
}

// ownOrigin reports whether a request comes from the page, or from no page. A
// link that leads to the page itself may stand anywhere.
func ownOrigin(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "http" || u.Host != r.Host {
			return false
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return true
	}
	return r.Method == http.MethodGet && r.URL.Path == "/" && r.Header.Get("Sec-Fetch-Mode") == "navigate"
}
