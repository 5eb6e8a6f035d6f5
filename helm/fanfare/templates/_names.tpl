{{/* Names, labels, references. */}}

{{- define "fanfare.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- end }}

{{/* Of everything. */}}
{{- define "fanfare.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: fanfare
{{ include "fanfare.selector" . }}
{{- end }}

{{/* Of every pod that serves; the migration's pods are not among them. */}}
{{- define "fanfare.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of the migration, which no Service may select. */}}
{{- define "fanfare.migration.selector" -}}
app.kubernetes.io/name: fanfare-migration
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Which kind of pod has the front door. */}}
{{- define "fanfare.front" -}}
{{- eq .Values.mode "embedded" | ternary "embedded" "router" -}}
{{- end }}

{{- define "fanfare.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "fanfare.serviceAccountName" -}}
{{- $made := default (include "fanfare.fullname" .) .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.create | ternary $made (default "default" .Values.serviceAccount.name) -}}
{{- end }}

{{/* What Prometheus calls the scrape: the name of the Service that it is made from. */}}
{{- define "fanfare.job" -}}
{{ include "fanfare.fullname" . }}-admin
{{- end }}

{{/* The Secrets that are referred to, as JSON: name, key, and the file that a pod has it as. */}}
{{- define "fanfare.secrets" -}}
{{- $used := list -}}
{{- if eq .Values.mode "distributed" -}}
{{- with .Values.cql.passwordSecret.name -}}
{{- $used = append $used (dict "name" . "key" (default "password" $.Values.cql.passwordSecret.key) "file" "cql-password") -}}
{{- end -}}
{{- with .Values.cql.caSecret.name -}}
{{- $used = append $used (dict "name" . "key" (default "ca.crt" $.Values.cql.caSecret.key) "file" "cql-ca.pem") -}}
{{- end -}}
{{- with .Values.kafka.sasl.passwordSecret.name -}}
{{- $used = append $used (dict "name" . "key" (default "password" $.Values.kafka.sasl.passwordSecret.key) "file" "kafka-password") -}}
{{- end -}}
{{- with .Values.kafka.tls.caSecret.name -}}
{{- $used = append $used (dict "name" . "key" (default "ca.crt" $.Values.kafka.tls.caSecret.key) "file" "kafka-ca.pem") -}}
{{- end -}}
{{- with .Values.kafka.tls.clientSecret.name -}}
{{- $used = append $used (dict "name" . "key" (default "tls.crt" $.Values.kafka.tls.clientSecret.certificateKey) "file" "kafka-certificate.pem") -}}
{{- $used = append $used (dict "name" . "key" (default "tls.key" $.Values.kafka.tls.clientSecret.keyKey) "file" "kafka-key.pem") -}}
{{- end -}}
{{- end -}}
{{ toJson $used }}
{{- end }}

{{/* Changes when a Secret's content does, as far as it may be read, or when values say so. */}}
{{- define "fanfare.secrets.checksum" -}}
{{- $seen := list .Values.secrets.revision -}}
{{- if .Values.secrets.lookup -}}
{{- range include "fanfare.secrets" . | fromJsonArray -}}
{{- $secret := lookup "v1" "Secret" $.Release.Namespace .name -}}
{{- $seen = append $seen (dig "data" .key "" $secret) -}}
{{- end -}}
{{- end -}}
{{- toJson $seen | sha256sum -}}
{{- end }}
