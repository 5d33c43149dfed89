package page

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	const local, anywhere = "127.0.0.1:8117", "0.0.0.0:8117"
	type headers map[string]string
	for name, tt := range map[string]struct {
		listen, method, path, host string
		headers                    headers
		want                       int
	}{
		"the page":                                 {local, "GET", "/", local, nil, 200},
		"the page by name":                         {local, "GET", "/", "localhost:8117", nil, 200},
		"the page over IPv6":                       {"[::1]:8117", "GET", "/", "[::1]:8117", nil, 200},
		"a file of the page":                       {local, "GET", "/page.js", local, headers{"Sec-Fetch-Site": "same-origin"}, 200},
		"the API from the page":                    {local, "POST", "/api/x", local, headers{"Origin": "http://" + local, "Sec-Fetch-Site": "same-origin"}, 200},
		"the API from a program":                   {local, "GET", "/api/x", local, nil, 200},
		"a name that DNS turns here":               {local, "GET", "/", "evil.example:8117", nil, 421},
		"a name that begins like ours":             {local, "GET", "/api/x", "127.0.0.1.evil.example:8117", nil, 421},
		"another port":                             {local, "GET", "/api/x", "127.0.0.1:80", nil, 421},
		"no port":                                  {local, "GET", "/api/x", "127.0.0.1", nil, 421},
		"no host":                                  {local, "GET", "/api/x", "", nil, 421},
		"an address that is not ours":              {local, "GET", "/api/x", "192.168.1.5:8117", nil, 421},
		"any address when asked for":               {anywhere, "GET", "/api/x", "192.168.1.5:8117", nil, 200},
		"a name even then":                         {anywhere, "GET", "/api/x", "evil.example:8117", nil, 421},
		"the API from another site":                {local, "POST", "/api/x", local, headers{"Origin": "http://evil.example"}, 403},
		"the API from another port":                {local, "POST", "/api/x", local, headers{"Origin": "http://127.0.0.1:3000"}, 403},
		"the API from a page over TLS":             {local, "POST", "/api/x", local, headers{"Origin": "https://" + local}, 403},
		"the API from a page without an origin":    {local, "POST", "/api/x", local, headers{"Origin": "null"}, 403},
		"the API as another site's picture":        {local, "GET", "/api/x", local, headers{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403},
		"the API as a link of another site":        {local, "GET", "/api/x", local, headers{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403},
		"the API from a site beside ours":          {local, "GET", "/api/x", local, headers{"Sec-Fetch-Site": "same-site"}, 403},
		"a link of another site to the page":       {local, "GET", "/", local, headers{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200},
		"the page's code as another site's script": {local, "GET", "/page.js", local, headers{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403},
		"writing to the page":                      {local, "POST", "/", local, nil, 405},
		"a file that is not there":                 {local, "GET", "/etc/passwd", local, nil, 404},
		"a path that climbs":                       {local, "GET", "/../page.go", local, nil, 307},
	} {
		t.Run(name, func(t *testing.T) {
			api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
			r := httptest.NewRequest(tt.method, "http://x"+tt.path, strings.NewReader("asked"))
			r.Host = tt.host
			for k, v := range tt.headers {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			Handler(tt.listen, api).ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("status %d, want %d: %s", w.Code, tt.want, w.Body)
			}
			h := w.Header()
			if csp := h.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "unsafe") {
				t.Errorf("Content-Security-Policy %q", csp)
			}
			if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("X-Frame-Options") != "DENY" || h.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("headers %v", h)
			}
		})
	}
}

func TestBodyIsBounded(t *testing.T) {
	var read int64
	var err error
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { read, err = io.Copy(io.Discard, r.Body) })
	r := httptest.NewRequest("POST", "/api/x", strings.NewReader(strings.Repeat("x", 1<<20)))
	r.Host = "127.0.0.1:8117"
	Handler("127.0.0.1:8117", api).ServeHTTP(httptest.NewRecorder(), r)
	if err == nil || read > maxBody {
		t.Errorf("read %d bytes, error %v", read, err)
	}
}

// TestFilesNeedNothingElse holds that the page is its own files only, with
// nothing inline that the policy would refuse.
func TestFilesNeedNothingElse(t *testing.T) {
	files, err := static.ReadDir("static")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := static.ReadFile("static/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), "http://www.w3.org/2000/svg", "")
		for _, bad := range []string{"http:", "https:", "//cdn", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", " style=", "javascript:", "onclick=\"", "<style"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s has %q", f.Name(), bad)
			}
		}
		if f.Name() == "index.html" && strings.Count(text, "<script") != strings.Count(text, "<script type=\"module\" src=") {
			t.Error("index.html has an inline script")
		}
	}
}
