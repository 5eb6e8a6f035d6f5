{{/* Fanfare's settings as TOML. A string or number in JSON is one in TOML. */}}

{{- define "fanfare.toml.key" -}}
{{- regexMatch "^[A-Za-z0-9_-]+$" . | ternary . (toJson .) -}}
{{- end }}

{{- define "fanfare.toml.value" -}}
{{- if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $key, $value := . -}}
{{- $pairs = append $pairs (printf "%s = %s" (include "fanfare.toml.key" $key) (include "fanfare.toml.value" $value)) -}}
{{- end -}}
{ {{ join ", " $pairs }} }
{{- else if kindIs "slice" . -}}
{{- $items := list -}}
{{- range . -}}
{{- $items = append $items (include "fanfare.toml.value" .) -}}
{{- end -}}
[{{ join ", " $items }}]
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end }}

{{/* Four fifths of the volume, so that the disk is never what refuses. */}}
{{- define "fanfare.storage.max" -}}
{{- $size := .Values.embedded.persistence.size -}}
{{- $number := regexFind "^[0-9]+" $size | int64 -}}
{{- $unit := regexFind "[A-Z]i$" $size -}}
{{- $mebibytes := get (dict "Mi" 1 "Gi" 1024 "Ti" 1048576) $unit | int64 -}}
{{- div (mul $number $mebibytes 4) 5 -}}MiB
{{- end }}

{{/* What the chart decides; values cannot set it twice. */}}
{{- define "fanfare.settings.own" -}}
{{- $files := "/etc/fanfare/secrets" -}}
{{- $have := dict -}}
{{- range include "fanfare.secrets" . | fromJsonArray -}}
{{- $_ := set $have .file (printf "%s/%s" $files .file) -}}
{{- end -}}
{{- $own := dict
      "server" (dict
        "listen" "0.0.0.0:7400"
        "admin_listen" "0.0.0.0:7401"
        "drain_deadline" (printf "%ds" (int64 .Values.drainDeadlineSeconds))
        "insecure_no_auth" .Values.auth.insecureNoAuth
        "log_format" .Values.logs.format)
      "storage" (dict "mode" .Values.mode)
      "egress" (dict
        "allow_egress" .Values.egress.allowNetworks
        "allow_hosts" .Values.egress.allowHosts
        "allow_http" .Values.egress.allowHttp) -}}
{{- if eq .Values.mode "embedded" -}}
{{- $_ := set $own.storage "data_dir" "/var/lib/fanfare/data" -}}
{{- else -}}
{{- $security := dict "tls" .Values.kafka.tls.enabled -}}
{{- with get $have "kafka-ca.pem" }}{{ $_ := set $security "ca_file" . }}{{ end -}}
{{- with get $have "kafka-certificate.pem" }}{{ $_ := set $security "certificate_file" . }}{{ end -}}
{{- with get $have "kafka-key.pem" }}{{ $_ := set $security "key_file" . }}{{ end -}}
{{- with .Values.kafka.sasl -}}
{{- if .mechanism -}}
{{- $_ := set $security "sasl" (dict "mechanism" .mechanism "username" .username "password_file" (get $have "kafka-password")) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $own "kafka" (dict "bootstrap_servers" .Values.kafka.bootstrapServers "security" $security) -}}
{{- $cql := dict
      "contact_points" .Values.cql.contactPoints
      "keyspace" .Values.cql.keyspace
      "replication" .Values.cql.replication -}}
{{- with .Values.cql.datacenter }}{{ $_ := set $cql "datacenter" . }}{{ end -}}
{{- with .Values.cql.user }}{{ $_ := set $cql "user" . }}{{ end -}}
{{- with get $have "cql-password" }}{{ $_ := set $cql "password_file" . }}{{ end -}}
{{- with get $have "cql-ca.pem" }}{{ $_ := set $cql "tls_ca_file" . }}{{ end -}}
{{- $_ := set $own "cql" $cql -}}
{{- end -}}
{{ toJson $own }}
{{- end }}

{{/* What the chart proposes; values may say otherwise. */}}
{{- define "fanfare.settings.proposed" -}}
{{- $proposed := dict "server" (dict "backend_wait" "1d") -}}
{{- if eq .Values.mode "embedded" -}}
{{- $_ := set $proposed "storage" (dict "max_bytes" (include "fanfare.storage.max" .)) -}}
{{- end -}}
{{ toJson $proposed }}
{{- end }}

{{/* The whole file. */}}
{{- define "fanfare.toml" -}}
{{- $proposed := include "fanfare.settings.proposed" . | fromJson -}}
{{- $own := include "fanfare.settings.own" . | fromJson -}}
{{- $all := mergeOverwrite $proposed (deepCopy .Values.settings) $own -}}
# Written by the chart. fanfare config default says what each setting means.
{{- range $section, $settings := $all }}

[{{ $section }}]
{{- range $name, $value := $settings }}
{{ $name }} = {{ include "fanfare.toml.value" $value }}
{{- end }}
{{- end }}
{{- range .Values.auth.keys }}

[[keys]]
name = {{ toJson .name }}
{{- if .allTenants }}
all_tenants = true
{{- else }}
tenants = {{ toJson .tenants }}
{{- end }}
sha256 = {{ toJson .sha256 }}
{{- end }}
{{ end }}
