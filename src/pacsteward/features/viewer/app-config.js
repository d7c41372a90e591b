// What OHIF is told about this house. Served as it is, as /viewer/app-config.js.
(function () {
  'use strict';

  // Where the reader wanted to go, kept before OHIF rewrites the address: after a refused search it
  // already shows "notfoundstudy", which is no place to come back to.
  const wanted = window.location.pathname + window.location.search;
  const SENT_AWAY = 'pacsteward.viewer.sentAway';
  const PATIENCE_MS = 10000;

  // An ended session shows as 401, on an Error or on a bare XMLHttpRequest; later errors of the
  // same cause carry no status at all, or are bare strings. A second 401 right after signing in
  // is no ended session, and sending the reader round once more would never end.
  function onHttpError(error) {
    if (!error || error.status !== 401) {
      return;
    }
    const before = Number(window.sessionStorage.getItem(SENT_AWAY) || 0);
    if (Date.now() - before < PATIENCE_MS) {
      return;
    }
    window.sessionStorage.setItem(SENT_AWAY, String(Date.now()));
    window.location.assign('/login?next=' + encodeURIComponent(wanted));
  }

  // OHIF greets a first visit with a tour of eleven windows that dims the image behind it. Whoever
  // opens a study wants to see the study; the help of the tools is in their tooltips.
  try {
    if (!window.localStorage.getItem('shownTours')) {
      window.localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']));
    }
  } catch (_) {
    // A browser that keeps nothing shows the tour.
  }

  window.config = {
    name: 'pacsteward',
    routerBasename: '/viewer',
    extensions: [],
    modes: [],
    customizationService: {},
    showStudyList: true,
    showLoadingIndicator: true,
    showErrorDetails: 'production',
    showCPUFallbackMessage: false,
    showWarningMessageForCrossOrigin: false,
    investigationalUseDialog: { option: 'never' },
    strictZSpacingForVolumeViewport: true,
    groupEnabledModesFirst: true,
    maxNumberOfWebWorkers: 3,
    maxNumRequests: { interaction: 20, thumbnail: 5, prefetch: 10 },
    // Without a function here every failed frame throws "handler is not a function".
    httpErrorHandler: onHttpError,
    whiteLabeling: {
      createLogoComponentFn: function (React) {
        return React.createElement(
          'a',
          { href: '/studies', className: 'text-white text-lg font-semibold', rel: 'noopener' },
          'Pacsteward'
        );
      },
    },
    defaultDataSourceName: 'pacsteward',
    dataSources: [
      {
        namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
        sourceName: 'pacsteward',
        configuration: {
          friendlyName: 'Pacsteward',
          name: 'pacsteward',
          qidoRoot: '/dicom-web',
          wadoRoot: '/dicom-web',
          qidoSupportsIncludeField: true,
          imageRendering: 'wadors',
          thumbnailRendering: 'wadors',
          enableStudyLazyLoad: true,
          supportsFuzzyMatching: false,
          supportsWildcard: true,
          supportsReject: false,
          dicomUploadEnabled: false,
          bulkDataURI: { enabled: true },
        },
      },
    ],
  };
})();
