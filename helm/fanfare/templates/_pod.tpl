{{/*
A pod that serves. Takes root, the component's name, the program and its arguments, resources,
whether it has the front door, and whether it has the volume.
*/}}

{{- define "fanfare.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $secrets := include "fanfare.secrets" $root | fromJsonArray -}}
metadata:
  labels:
    # None that changes with the chart alone: that would be a rollout.
    {{- include "fanfare.selector" $root | nindent 4 }}
    app.kubernetes.io/part-of: fanfare
    app.kubernetes.io/component: {{ .component }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A change of either is a rollout.
    checksum/settings: {{ include "fanfare.toml" $root | sha256sum }}
    checksum/secrets: {{ include "fanfare.secrets.checksum" $root }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "fanfare.serviceAccountName" $root }}
  {{- include "fanfare.pod.common" $root | nindent 2 }}
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  {{- if not .volume }}
  topologySpreadConstraints:
    # Zones are only preferred: with DoNotSchedule nodes that name none could take no pod.
    {{- range $key, $unless := dict "kubernetes.io/hostname" $values.spread "topology.kubernetes.io/zone" "ScheduleAnyway" }}
    - topologyKey: {{ $key }}
      maxSkew: 1
      whenUnsatisfiable: {{ $unless }}
      labelSelector:
        matchLabels:
          {{- include "fanfare.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ $.component }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  containers:
    - name: fanfare
      image: {{ include "fanfare.image" $root | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command: {{ toJson .command }}
      {{- with include "fanfare.pod.env" $root | trim }}
      env:
        {{- . | nindent 8 }}
      {{- end }}
      ports:
        {{- if .front }}
        - name: front
          containerPort: 7400
        {{- end }}
        - name: admin
          containerPort: 7401
      # Alive is a process that answers; Kafka and the store are not asked. It answers from the
      # first moment on, also while it waits for them.
      startupProbe:
        httpGet: { path: /livez, port: admin }
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: { path: /livez, port: admin }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: admin }
        periodSeconds: 3
        timeoutSeconds: 3
        failureThreshold: 2
      {{- if and .front (gt (int64 $values.preStopSeconds) 0) }}
      lifecycle:
        # Meanwhile the cluster learns that it is leaving, and sends new connections elsewhere.
        preStop:
          sleep:
            seconds: {{ $values.preStopSeconds }}
      {{- end }}
      {{- include "fanfare.container.security" $root | nindent 6 }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      volumeMounts:
        {{- include "fanfare.pod.mounts" $secrets | nindent 8 }}
        {{- if .volume }}
        - name: data
          mountPath: /var/lib/fanfare
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "fanfare.pod.volumes" (dict "settings" (include "fanfare.fullname" $root) "secrets" $secrets) | nindent 4 }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Of every pod, the migration's too. */}}
{{- define "fanfare.pod.common" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .Values.runAsUser }}
  runAsGroup: {{ .Values.runAsUser }}
  fsGroup: {{ .Values.runAsUser }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "fanfare.container.security" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "fanfare.pod.env" -}}
{{- with .Values.logs.filter }}
- name: RUST_LOG
  value: {{ . | quote }}
{{- end }}
{{- with .Values.tracing.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $.Values.tracing.sampleRatio | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Takes the Secrets. */}}
{{- define "fanfare.pod.mounts" -}}
- name: settings
  mountPath: /etc/fanfare/fanfare.toml
  subPath: fanfare.toml
  readOnly: true
{{- if . }}
- name: secrets
  mountPath: /etc/fanfare/secrets
  readOnly: true
{{- end }}
# The root file system is read-only; this is the only other place to write to.
- name: tmp
  mountPath: /tmp
{{- end }}

{{/* Takes the name of the ConfigMap with the settings, and the Secrets. */}}
{{- define "fanfare.pod.volumes" -}}
- name: settings
  configMap:
    name: {{ .settings }}
{{- with .secrets }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range . }}
      - secret:
          name: {{ .name | quote }}
          items:
            - key: {{ .key | quote }}
              path: {{ .file }}
      {{- end }}
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 16Mi
{{- end }}
